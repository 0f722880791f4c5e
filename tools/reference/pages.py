"""All reference pages by file name."""

from __future__ import annotations

import json
from pathlib import Path

from headgate.config import json_schema
from tools.reference.commands import build_commands_page
from tools.reference.errors import build_errors_page
from tools.reference.http import build_http_page
from tools.reference.metrics import build_metrics_page
from tools.reference.settings import build_settings_page

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"
SCHEMA = "headgate.schema.json"


def build_pages() -> dict[str, str]:
    """The text of every generated file in docs/reference/."""
    return {
        "settings.md": build_settings_page(),
        "cli.md": build_commands_page(),
        "http.md": build_http_page(),
        "metrics.md": build_metrics_page(),
        "errors.md": build_errors_page(),
        SCHEMA: json.dumps(json_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n",
    }
