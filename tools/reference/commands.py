"""docs/reference/cli.md: every command and option of `headgate`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer.main

from headgate.cli.exits import MEANINGS
from headgate.cli.program import program
from tools.reference.markdown import NOTE, code, sentence, table

_INTRO = """# Commands

The same texts stand in `headgate COMMAND --help`. Answers go to stdout, everything else (progress, warnings, errors) to
stderr; with `--json` stdout holds JSON and nothing else, an error too.
"""
ENVIRONMENT = {
    "HEADGATE_CONFIG": "Configuration file, where `--config` names none.",
    "HEADGATE_STATE": "State folder, where neither `--state` nor `state:` in the configuration names one.",
    "HEADGATE_DEBUG": "`1` shows the traceback of an unexpected error.",
    "XDG_STATE_HOME": "Parent of the state folder when nothing else names it; `~/.local/state` without it.",
    "HF_ENDPOINT": "A mirror of the Hugging Face hub; its host must be in `registry.hub_hosts`.",
    "HF_TOKEN": "Token for gated models on the hub.",
}
_HIDDEN = {"--help", "-h", "--install-completion", "--show-completion"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandFacts:
    """One command as it is typed, and its parameters."""

    name: str
    text: str
    parameters: tuple[Any, ...]
    is_group: bool


def list_commands() -> list[CommandFacts]:
    """`headgate` itself and every command below it that is not hidden."""
    return list(_walk(typer.main.get_command(program), "headgate"))


def parameter_names(parameter: Any) -> list[str]:
    """How a parameter is typed: '--json', '-c', or 'NAME' for an argument."""
    if parameter.param_type_name == "argument":
        return [(parameter.metavar or parameter.name).upper()]
    return [name for name in (*parameter.opts, *parameter.secondary_opts) if name not in _HIDDEN]


def build_commands_page() -> str:
    """The page."""
    parts = [NOTE, _INTRO]
    for command in list_commands():
        parts.append(f"## {command.name}\n\n{_paragraphs(command.text)}\n")
        rows = [_row(parameter) for parameter in command.parameters]
        if rows:
            parts.append(table(("parameter", "default", "what it does"), rows))
    parts.append("## Exit codes\n\nScripts may rely on them.\n")
    parts.append(table(("code", "meaning"), [(code(str(number)), sentence(text)) for number, text in MEANINGS.items()]))
    parts.append("## Environment\n")
    parts.append(table(("variable", "what it sets"), [(code(name), text) for name, text in ENVIRONMENT.items()]))
    return "\n".join(parts)


def _walk(command: Any, name: str) -> Iterator[CommandFacts]:
    children: dict[str, Any] = getattr(command, "commands", None) or {}
    parameters = tuple(one for one in command.params if not getattr(one, "hidden", False) and parameter_names(one))
    yield CommandFacts(name=name, text=command.help or "", parameters=parameters, is_group=bool(children))
    for child_name, child in children.items():
        if not child.hidden:
            yield from _walk(child, f"{name} {child_name}")


def _row(parameter: Any) -> tuple[str, str, str]:
    names = ", ".join(code(name) for name in parameter_names(parameter))
    if parameter.required:
        default = "*needed*"
    elif parameter.default is None or callable(parameter.default) or parameter.default in ((), [], False, ""):
        default = ""
    else:
        default = code(str(getattr(parameter.default, "value", parameter.default)))
    return names, default, sentence(getattr(parameter, "help", None) or "")


def _paragraphs(text: str) -> str:
    """Help text with its paragraphs; single line breaks are wrapping. A form feed ends what is shown."""
    shown = text.split("\f")[0].replace("\b", "")
    return "\n\n".join(sentence(part) for part in shown.split("\n\n") if part.strip())
