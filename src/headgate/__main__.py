"""`python -m headgate`: the command line; `node` and `gateway`, the supervisor's children, load only their own."""

from __future__ import annotations

import sys


def main() -> int:
    """Run one process of the house, or a command."""
    arguments = sys.argv[1:]
    if arguments == ["node"]:
        from headgate.app.node import run_node

        return run_node()
    if arguments == ["gateway"]:
        from headgate.app.gateway import run_gateway

        return run_gateway()
    from headgate.cli import main as run_command

    run_command()
    return 0


if __name__ == "__main__":
    sys.exit(main())
