"""The program `headgate`: every command, and how errors end it."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from headgate.cli import config, demo, doctor, exits, explain, house, keys, models, simulate, talk, trace, tune, view
from headgate.cli.output import err, print_json
from headgate.core.errors import HeadgateError


class Program(TyperGroup):
    """Turns every error into one message with its cure and an exit code; never into a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        if os.environ.get("HEADGATE_DEBUG") == "1":
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except HeadgateError as error:
            as_json = bool(ctx.meta.get("headgate.json"))
            _tell(error.message, error.code, error.param, as_json)
            raise typer.Exit(exits.exit_code(error)) from None
        except KeyboardInterrupt:
            err.print("interrupted")
            raise typer.Exit(exits.INTERRUPTED) from None
        except BrokenPipeError:  # the reader of our output has left, as `| head` does
            sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
            raise typer.Exit(exits.OK) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if type(error).__module__.startswith(("click", "typer")):
                raise
            cure = "This is a fault in Headgate; HEADGATE_DEBUG=1 shows where."
            _tell(
                f"{type(error).__name__}: {error}. {cure}", "internal_error", None, bool(ctx.meta.get("headgate.json"))
            )
            raise typer.Exit(exits.FAILURE) from None


def _tell(message: str, code: str | None, param: str | None, as_json: bool) -> None:
    err.print(f"[bold red]headgate:[/] {escape(message)}")
    if as_json:
        print_json({"error": {"message": message, "code": code, "param": param}})


_CODES = "  \n".join(f"{code}: {meaning}" for code, meaning in exits.MEANINGS.items())

program = typer.Typer(
    cls=Program,
    name="headgate",
    help="Many small language models, the hardware you own, one OpenAI-compatible door.",
    epilog=f"Exit codes:\n\n{_CODES}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)

_RUN, _LOOK, _KEEP, _HELP = "Run", "Look", "Keep", "Help"
program.command("up", rich_help_panel=_RUN)(house.up)
program.command("down", rich_help_panel=_RUN)(house.down)
program.command("reload", rich_help_panel=_RUN)(house.reload)
program.command("demo", rich_help_panel=_RUN)(demo.demo)
program.command("status", rich_help_panel=_LOOK)(view.status)
program.command("top", rich_help_panel=_LOOK)(view.top)
program.command("explain", rich_help_panel=_LOOK)(explain.explain)
program.command("chat", rich_help_panel=_LOOK)(talk.chat)
program.command("simulate", rich_help_panel=_LOOK)(simulate.simulate)
program.add_typer(models.program, name="model", rich_help_panel=_KEEP)
program.command("tune", rich_help_panel=_KEEP)(tune.tune)
program.add_typer(keys.program, name="key", rich_help_panel=_KEEP)
program.add_typer(trace.program, name="trace", rich_help_panel=_KEEP)
program.add_typer(config.program, name="config", rich_help_panel=_KEEP)
program.command("doctor", rich_help_panel=_HELP)(doctor.doctor)
program.command("systemd", rich_help_panel=_HELP)(house.systemd)
program.command("version", rich_help_panel=_HELP)(doctor.version)
