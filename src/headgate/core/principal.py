"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["admin", "user", "scrape"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The authenticated asker: its key, user, team and role. Identity never comes from a client's header."""

    key_id: str
    user: str
    team: str
    role: Role


LOCAL_ADMIN = Principal(key_id="local", user="local", team="local", role="admin")
