"""The command line: commands, their options and how their answers look. What they do is app's and the rooms'."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code (see exits)."""
    from headgate.cli.program import program

    program(args=None if arguments is None else list(arguments), prog_name="headgate")
