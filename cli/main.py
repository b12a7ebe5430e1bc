"""`reason`, the command: registers the subcommands; prints an error as one line and returns its exit status."""

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
from .ask import EXAMPLES, ask
from .calibrate import calibrate_app
from .catalog import strategies_app, verifiers_app
from .config import config_app
from .doctor import doctor
from .eval import eval_app
from .index import index_app
from .interrupts import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, Interrupted
from .keys import keys_app
from .mcp import EXAMPLES as MCP_EXAMPLES
from .mcp import mcp
from .memory import memory_app
from .models import models_app
from .pool import pool_app
from .render.console import is_debug, say
from .runs import runs_app
from .serve import EXAMPLES as SERVE_EXAMPLES
from .serve import serve
from .train import train_app
from .verify import EXAMPLES as VERIFY_EXAMPLES
from .verify import verify
from .vote import EXAMPLES as VOTE_EXAMPLES
from .vote import vote

# The parser's exceptions, reached through a public name of typer: some versions of typer bundle their own click.
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
app.command("mcp", epilog=MCP_EXAMPLES)(mcp)
app.add_typer(eval_app, name="eval")
app.add_typer(pool_app, name="pool")
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


def _print_version(requested: bool) -> None:
    if requested:
        from ..core.version import __version__

        sys.stdout.write(f"reason {__version__}\n")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Version of reason.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Print the help if no command is named."""
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command line without the program's name; None is `sys.argv`.

    Returns:
        The exit status; `core/errors.py` has that of each error.
    """
    _prepare_streams()
    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = app(args=None if arguments is None else list(arguments), prog_name="reason", standalone_mode=False)
        sys.stdout.flush()
    except ReasonError as e:
        return _fail(e, str(e), e.exit_code)
    except BrokenPipeError:
        return _leave_broken_pipe()
    except SystemExit as e:
        # typer and rich exit on a closed pipe with status 1, where a shell expects 141
        if isinstance(e.__context__, BrokenPipeError):
            return _leave_broken_pipe()
        status = e.code
    except (Interrupted, asyncio.CancelledError, typer.Abort):
        say("interrupted")
        return EXIT_INTERRUPTED
    except Exception as e:  # noqa: BLE001 (outermost caller: one line for the user, the traceback on request)
        if isinstance(e, ParserError):
            return _fail(e, _usage(e), 2 if isinstance(e, UsageError) else 1)
        return _fail(e, f"{type(e).__name__}: {e} (REASON_DEBUG=1 prints the traceback)", 1, label="internal error")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return status if isinstance(status, int) else 0


def _fail(error: Exception, message: str, status: int, label: str = "error") -> int:
    if is_debug():
        traceback.print_exception(error)
    say(message, label=label, style="bold red")
    return status


def _usage(error: Any) -> str:
    """The parser's message, with a reference to the help."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message} (see {context.command_path} --help)" if context is not None else message


def _leave_broken_pipe() -> int:
    """Exit quietly: the reader of the pipe has what it needs."""
    # buffered output would be flushed, and fail again, when the interpreter exits
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_BROKEN_PIPE


def _prepare_streams() -> None:
    """Silence warnings of libraries, and replace characters that the encoding lacks."""
    if not is_debug() and not sys.warnoptions:
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted
