"""The child process that renders one chat template: little memory, little time, no files, no imports.

    python -m headgate.registry.template_sandbox < request.json > reply.json

The request has template, message, now (seconds since the epoch), tokens (bos_token and the like) and timeout_s; the
reply has text or refused. Apart from templates, so that only the child ever loads Jinja.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from datetime import UTC, datetime
from typing import Any, NoReturn, cast

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_OUTPUT_LETTERS = 256 * 1024
MAX_RANGE = 10_000
MAX_REPEAT = 100_000
MEMORY_BYTES = 512 * 2**20

_WIDE = re.compile(r"%[^a-zA-Z%]*([0-9]{4}|\*)")


def render(template: str, messages: tuple[dict[str, str], ...], *, now: float, tokens: dict[str, str]) -> str:
    """`template` rendered here, in this process, within all limits but time and memory. For the child.

    Raises TemplateError (SecurityError among them) and whatever a template's own arithmetic raises.
    """
    environment: Any = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=[loopcontrols, _Generation]
    )

    def strftime_now(form: str) -> str:
        return datetime.fromtimestamp(now, UTC).strftime(form)

    environment.filters["tojson"] = _tojson
    names: dict[str, Any] = environment.globals
    names |= {"raise_exception": _raise, "strftime_now": strftime_now, "range": _range}
    for name in ("lipsum", "cycler"):
        names.pop(name, None)
    _check_tree(environment.parse(template))
    values: dict[str, Any] = {"bos_token": "", "eos_token": "", "tools": None, "documents": None}
    values |= tokens | {"messages": list(messages), "add_generation_prompt": True}
    pieces: list[str] = []
    length = 0
    for piece in environment.from_string(template).generate(values):
        length += len(piece)
        if length > MAX_OUTPUT_LETTERS:
            raise SecurityError(f"it writes more than {MAX_OUTPUT_LETTERS} letters for one message")
        pieces.append(piece)
    return "".join(pieces)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "%"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in ("ljust", "rjust", "center", "zfill", "expandtabs"):
            return False  # each makes a text of any length from a few letters
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and not (_is_small(left) and _is_small(right)):
            raise SecurityError("it raises a number to a power")
        if operator == "%" and isinstance(left, str) and _WIDE.search(left):
            raise SecurityError("it formats a text with a very wide %")
        if operator == "*":
            for sequence, count in ((left, right), (right, left)):
                repeats = isinstance(sequence, str | bytes | list | tuple) and isinstance(count, int)
                if repeats and len(cast(str, sequence)) * cast(int, count) > MAX_REPEAT:
                    raise SecurityError("it repeats a text or list too often")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """{% generation %}...{% endgeneration %} marks the assistant's words for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012  the name and type are Jinja's

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _check_tree(tree: nodes.Template) -> None:
    for node in tree.find_all((nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends)):
        raise SecurityError(f"it imports or includes something (line {node.lineno})")
    for node in tree.find_all(nodes.Getattr):
        if node.attr.startswith("_"):
            raise SecurityError(f"it reaches for the attribute {node.attr[:40]!r} (line {node.lineno})")
    for node in tree.find_all(nodes.Const):
        if isinstance(node.value, str) and node.value.startswith("__") and node.value.endswith("__"):
            raise SecurityError(f"it names the attribute {node.value[:40]!r} (line {node.lineno})")


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > MAX_RANGE:
        raise SecurityError(f"it counts over more than {MAX_RANGE} numbers")
    return numbers


def _is_small(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= 64


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(value: Any, indent: int | None = None, **_options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=min(indent, 8) if indent else None)


def _main() -> None:
    request = json.load(sys.stdin.buffer)
    seconds = max(1, round(request["timeout_s"]))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
    try:
        text = render(
            request["template"],
            ({"role": "user", "content": request["message"]},),
            now=request["now"],
            tokens=request["tokens"],
        )
        answer = {"text": text}
    except MemoryError:
        answer = {"refused": "it needs too much memory"}
    except RecursionError:
        answer = {"refused": "it nests too deeply"}
    except Exception as error:  # a template's own arithmetic may raise anything, and each of it refuses the template
        answer = {"refused": (str(error).splitlines() or [type(error).__name__])[0][:200]}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    _main()
