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

from ..core.errors import Cancelled, ReasonError, UserError
from .ask import EXAMPLES, ask
from .interrupts import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, Interrupted
from .render.console import Written, is_debug, say, write_json

# The parser's exception, reached through a public name of typer: some versions of typer bundle their own click.
ParserError: type[Exception] = typer.BadParameter.__mro__[2]

EXIT_STATUSES = """
[b]Exit status[/b]

0 done   1 internal error   2 usage error   3 failure of a model, a provider or a store
4 budget exhausted   5 not verified   6 no answer   7 waiting for decisions   130 interrupted   141 pipe closed
"""


def complete_app() -> typer.Typer:
    """The command with all of its subcommands."""
    from .catalog import strategies_app, verifiers_app
    from .chat import EXAMPLES as CHAT_EXAMPLES
    from .chat import chat
    from .config import config_app
    from .doctor import doctor
    from .eval import eval_app
    from .index import index_app
    from .keys import keys_app
    from .memory import memory_app
    from .models import models_app
    from .pool import pool_app
    from .runs import runs_app
    from .serve import EXAMPLES as SERVE_EXAMPLES
    from .serve import MCP_EXAMPLES, mcp, serve
    from .tools import tools_app
    from .verify import EXAMPLES as VERIFY_EXAMPLES
    from .verify import verify

    app = ask_app()
    app.command("verify", epilog=VERIFY_EXAMPLES)(verify)
    app.command("serve", epilog=SERVE_EXAMPLES)(serve)
    app.command("mcp", epilog=MCP_EXAMPLES)(mcp)
    app.add_typer(eval_app, name="eval")
    app.add_typer(pool_app, name="pool")
    app.add_typer(strategies_app, name="strategies")
    app.command("chat", epilog=CHAT_EXAMPLES)(chat)
    app.add_typer(verifiers_app, name="verifiers")
    app.add_typer(models_app, name="models")
    app.add_typer(runs_app, name="runs")
    app.add_typer(tools_app, name="tools")
    app.add_typer(memory_app, name="memory")
    app.add_typer(keys_app, name="keys")
    app.add_typer(index_app, name="index")
    app.command("doctor")(doctor)
    app.add_typer(config_app, name="config")
    return app


def ask_app() -> typer.Typer:
    """The command with `ask` alone, whose first token does not wait until the modules of the others are imported."""
    app = typer.Typer(
        name="reason",
        epilog=EXIT_STATUSES,
        help="Reasoning strategies and answer verification for language models: one budget, one trace, one run store.",
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    app.command("ask", epilog=EXAMPLES)(ask)
    return app


def _print_version(requested: bool) -> None:
    if requested:
        from ..core.version import __version__

        sys.stdout.write(f"reason {__version__}\n")
        raise typer.Exit


def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Print the help if no command is named."""
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")


def main(arguments: Sequence[str] | None = None, app: typer.Typer | None = None) -> int:
    """Run one command. An error is a line on standard error, and with `--json` an object on standard output as well.

    Args:
        arguments: The command line without the program's name; None is `sys.argv`.
        app: A command of a script; None is `reason`.

    Returns:
        The exit status; `core/errors.py` has that of each error.
    """
    _prepare_streams()
    command = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in (command[: command.index("--")] if "--" in command else command)
    Written.any = False
    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if app is None:
            app = ask_app() if command[:1] == ["ask"] else complete_app()
        status = app(args=command, prog_name=app.info.name, standalone_mode=False)
        sys.stdout.flush()
        if status == EXIT_INTERRUPTED and as_json:  # the command has said so
            _write_error(Cancelled("interrupted"), status)
    except ReasonError as e:
        return _fail(e, str(e), e.exit_code, as_json=as_json)
    except BrokenPipeError:
        return _leave_broken_pipe()
    except SystemExit as e:
        # typer and rich exit on a closed pipe with status 1, where a shell expects 141
        if isinstance(e.__context__, BrokenPipeError):
            return _leave_broken_pipe()
        status = e.code
    except (Interrupted, asyncio.CancelledError, typer.Abort):
        return _fail(Cancelled("interrupted"), "interrupted", EXIT_INTERRUPTED, as_json=as_json, label="")
    except Exception as e:  # noqa: BLE001 (outermost caller: one line for the user, the traceback on request)
        if isinstance(e, ParserError):
            usage = _usage_error(e)
            return _fail(usage, str(usage), usage.exit_code, as_json=as_json)
        message = f"{type(e).__name__}: {e} (REASON_DEBUG=1 prints the traceback)"
        return _fail(e, message, ReasonError.exit_code, label="internal error", as_json=as_json)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return status if isinstance(status, int) else 0


def _fail(error: Exception, message: str, status: int, *, as_json: bool, label: str = "error") -> int:
    if is_debug():
        traceback.print_exception(error)
    say(message, label=label, style="bold red")
    try:
        if as_json:
            _write_error(error, status)
    except BrokenPipeError:
        return _leave_broken_pipe()
    return status


def _write_error(error: Exception, status: int) -> None:
    """Write the JSON object of an error, unless the object of a partial result is there."""
    if Written.any:
        return
    known = error if isinstance(error, ReasonError) else ReasonError(f"{type(error).__name__}: {error}")
    write_json(
        {
            "error": {
                "code": known.code,
                "message": known.message,
                "hint": known.hint or None,
                "param": getattr(known, "param", None),
                "exit_status": status,
            }
        }
    )


def _usage_error(error: Any) -> UserError:
    """An error of the parser, with a reference to the help."""
    context = getattr(error, "ctx", None)
    param = getattr(error, "option_name", None) or getattr(getattr(error, "param", None), "name", None)
    hint = f"see {context.command_path} --help" if context is not None else ""
    return UserError(error.format_message().rstrip("."), hint=hint, param=param)


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
