"""`reason`, the command: puts the commands together and turns errors into one line and an exit status."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from ..core.errors import ReasonError
from ..core.version import __version__
from .ask import EXAMPLES, ask
from .calibrate import calibrate_app
from .config import config_app
from .doctor import doctor
from .eval import eval_app
from .index import index_app
from .interrupts import EXIT_INTERRUPTED, EXIT_NOBODY_READS, Interrupted
from .keys import keys_app
from .memory import memory_app
from .models import models_app
from .render.console import debugging, say
from .runs import runs_app
from .serve import EXAMPLES as SERVE_EXAMPLES
from .serve import serve
from .strategies import strategies_app
from .train import train_app
from .verifiers import verifiers_app
from .verify import EXAMPLES as VERIFY_EXAMPLES
from .verify import verify
from .vote import EXAMPLES as VOTE_EXAMPLES
from .vote import vote

# The exceptions of the parser, by way of typer's public name: some versions of typer carry their own copy of click.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
ParserError: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="reason",
    help="Reasoning strategies and answer verification for language models: one budget, one trace, one run store.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("ask", epilog=EXAMPLES)(ask)
app.command("verify", epilog=VERIFY_EXAMPLES)(verify)
app.command("vote", epilog=VOTE_EXAMPLES)(vote)
app.command("serve", epilog=SERVE_EXAMPLES)(serve)
app.add_typer(eval_app, name="eval")
app.add_typer(train_app, name="train")
app.add_typer(calibrate_app, name="calibrate")
app.add_typer(strategies_app, name="strategies")
app.add_typer(verifiers_app, name="verifiers")
app.add_typer(models_app, name="models")
app.add_typer(runs_app, name="runs")
app.add_typer(memory_app, name="memory")
app.add_typer(keys_app, name="keys")
app.add_typer(index_app, name="index")
app.command("doctor")(doctor)
app.add_typer(config_app, name="config")


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"reason {__version__}\n")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Show the help if nothing is asked for."""
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command line without the program's name; None takes the process's own.

    Returns:
        The exit status, as `core/errors.py` has it for each error.
    """
    _prepare_streams()
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = app(args=None if arguments is None else list(arguments), prog_name="reason", standalone_mode=False)
        sys.stdout.flush()
    except ReasonError as e:
        return _fail(e, str(e), e.exit_code)
    except BrokenPipeError:
        return _nobody_reads()
    except SystemExit as e:
        # parser and tables end the process on a closed pipe, with a status that says less than the shell would
        if isinstance(e.__context__, BrokenPipeError):
            return _nobody_reads()
        status = e.code
    except (Interrupted, asyncio.CancelledError, typer.Abort):
        say("interrupted")
        return EXIT_INTERRUPTED
    except Exception as e:  # noqa: BLE001 (the outermost caller: a person sees one line, and the trace on request)
        if isinstance(e, ParserError):
            return _fail(e, _usage(e), 2 if isinstance(e, UsageError) else 1)
        return _fail(e, f"{type(e).__name__}: {e} (REASON_DEBUG=1 shows where)", 1, label="internal error")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if isinstance(status, int) else 0


def _fail(error: Exception, message: str, status: int, label: str = "error") -> int:
    if debugging():
        traceback.print_exception(error)
    say(message, label=label, style="bold red")
    return status


def _usage(error: Any) -> str:
    """What the parser says, with the way to the help."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message} (see {context.command_path} --help)" if context is not None else message


def _nobody_reads() -> int:
    """Leave quietly: whoever closed the pipe has what it wanted."""
    # what is still buffered would be written, and fail, once more at the interpreter's end
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_NOBODY_READS


def _prepare_streams() -> None:
    """Let warnings of libraries rest, which no user can act on, and no character stop the answer."""
    if not debugging() and not sys.warnoptions:
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted
