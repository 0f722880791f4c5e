"""Settings as people write them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from headgate.workers.settings import WorkerSettings


def test_quantities_as_people_write_them() -> None:
    settings = WorkerSettings.model_validate({"grace_s": "500ms", "log_bytes": "1 MiB", "isolate": "off"})
    assert (settings.grace_s, settings.log_bytes) == (0.5, 1 << 20)


@pytest.mark.parametrize(
    "raw",
    [{"grace_s": "soon"}, {"log_keep": -1}, {"isolate": "perhaps"}, {"colour": 1}, {"log_bytes": 0}, {"ready_s": "0s"}],
)
def test_nonsense_is_refused(raw: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        WorkerSettings.model_validate(raw)
