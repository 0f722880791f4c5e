"""The systemd unit that is shipped, filled in for this installation. Prints nothing and installs nothing."""

from __future__ import annotations

from importlib.resources import files


def load_unit(command: str | None = None, user: str | None = None) -> str:
    """The text of headgate.service; `command` replaces what it starts (first word an absolute path), `user`
    whom as.
    """
    lines: list[str] = []
    for line in files("headgate.workers").joinpath("headgate.service").read_text(encoding="utf-8").splitlines():
        if command is not None and line.startswith("ExecStart="):
            line = f"ExecStart={command}"
        if user is not None and line.startswith("User="):
            line = f"User={user}"
        lines.append(line)
    return "\n".join(lines) + "\n"
