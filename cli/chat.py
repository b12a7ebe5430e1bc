"""`reason chat`: talk with a model, which may call tools."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .command import option_model
from .interrupts import EXIT_INTERRUPTED, Interrupted, run_interruptible
from .options import REASONING, BudgetOptions, ReasoningOptions, RunStore, ToolOptions, resume_flags
from .render.console import one_line, say, truncate, write_line

if TYPE_CHECKING:
    from ..agents.conversation import Conversation
    from ..agents.reasoner import Reasoner
    from ..core.events import Sink
    from ..core.types import Answer
    from .approvals import TerminalApprover

T = TypeVar("T")
LAST = "last"
EXAMPLES = """
[b]Examples[/b]

reason chat
reason chat --tool documents --context docs/ --tool python
reason chat --mcp "uvx mcp-server-time" --approve writes
reason chat --resume last

[b]Commands[/b]

/undo   remove the last question and its answer      /resume       continue an interrupted answer
/save FILE   write the conversation, as JSON or text   /quit, Ctrl-D   leave; --resume continues

Answers are written to standard output, everything else to standard error. Ctrl-C stops an answer, and leaves at the
prompt.
"""
HELP = "/undo, /resume, /save FILE, /quit"


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """Options of `reason chat`."""

    resume: Annotated[
        str | None,
        typer.Option(
            metavar="CONVERSATION", help="Resume a conversation by its ID, or the last one: last.", show_default=False
        ),
    ] = None
    system: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Set the system message.", show_default=False, rich_help_panel=REASONING),
    ] = ""
    reasoning: ReasoningOptions
    context: Annotated[
        list[str],
        typer.Option(
            metavar="DIR|…",
            help="Add a knowledge source for [b]--tool documents[/b], coat and rag. Repeatable.",
            show_default=False,
            rich_help_panel=REASONING,
        ),
    ] = field(default_factory=list)
    tools: ToolOptions
    budget: BudgetOptions
    store: RunStore = None


@option_model
def chat(options: ChatOptions) -> None:
    """Talk with a model, which may call tools. The budget is that of the whole conversation."""
    from ..agents.reasoner import Reasoner
    from ..core.budget import Budget
    from ..core.settings import load_settings
    from .approvals import TerminalApprover, can_ask

    reasoning = options.reasoning
    settings = load_settings(**reasoning.settings, store=options.store)
    tools = options.tools.specs or settings.tools.use
    approver = TerminalApprover() if tools and can_ask() else None
    with asyncio.Runner() as runner:
        reasoner = Reasoner(
            **reasoning.arguments,
            context=options.context or None,
            tools=tools,
            **options.tools.arguments,
            approver=approver,
            settings=settings,
        )
        try:
            budget = None if options.budget.limits is None else Budget.model_validate(options.budget.limits)
            conversation = runner.run(_open(reasoner, options, budget))
            Chat(reasoner, conversation, runner, approver, resume_flags(options.store)).run()
        finally:
            runner.run(reasoner.aclose())


async def _open(reasoner: Reasoner, options: ChatOptions, budget: Any) -> Conversation:
    """The conversation to resume, or a new one.

    Raises:
        UnknownName: There is none of that ID.
    """
    from ..agents.conversation import last_conversation
    from ..core.errors import UnknownName

    name = options.resume
    if name == LAST:
        name = await last_conversation(await reasoner.open_store())
    async with reasoner.conversation(conversation_id=name, system=options.system, budget=budget) as conversation:
        if options.resume is not None and not (conversation.runs or conversation.unfinished):
            raise UnknownName("conversation", options.resume, hint="`reason chat` begins a new one")
        return conversation


class Chat:
    """A conversation at the terminal, or with one message a line of standard input."""

    def __init__(
        self,
        reasoner: Reasoner,
        conversation: Conversation,
        runner: asyncio.Runner,
        approver: TerminalApprover | None,
        flags: Sequence[str],
    ) -> None:
        self._reasoner, self._conversation, self._runner = reasoner, conversation, runner
        self._approver, self._flags = approver, flags

    def run(self) -> None:
        """Read messages and answer them until the end of the input.

        Raises:
            typer.Exit: Ctrl-C at the prompt.
        """
        conversation = self._conversation
        say(f"{self._reasoner.settings.model}; {HELP}", label="chat", style="cyan")
        for message in conversation.messages:
            if message.role in ("user", "assistant") and message.content:
                say(message.content, label="you" if message.role == "user" else "model", style="dim")
        if conversation.unfinished:
            say("the last question has no answer yet: /resume continues, /undo removes it", label="note", style="cyan")
        try:
            while (line := read_message()) is not None:
                if line.startswith("/"):
                    if not self._command(*line[1:].partition(" ")[::2]):
                        break
                elif line:
                    self._turn(lambda sinks: conversation.ask(line, sinks=sinks, stream_text=True))
        except (KeyboardInterrupt, Interrupted):
            sys.stderr.write("\n")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        finally:
            if conversation.runs or conversation.unfinished:
                command = shlex.join(["reason", "chat", "--resume", conversation.id, *self._flags])
                say(command, label="to continue", style="cyan")

    def _command(self, name: str, argument: str) -> bool:
        """Execute a command; returns whether the chat goes on."""
        from ..core.errors import ReasonError

        conversation = self._conversation
        try:
            match name:
                case "quit" | "exit":
                    return False
                case "undo":
                    for call in self._await(conversation.undo()):
                        say(
                            f"{call.tool}({call.arguments}) was executed, and is not undone", label="note", style="cyan"
                        )
                    say(f"{len(conversation.runs)} questions are left", label="undone", style="cyan")
                case "resume":
                    self._turn(lambda sinks: conversation.resume(sinks=sinks, stream_text=True))
                case "save":
                    save(conversation, Path(argument.strip() or f"{conversation.id}.json"))
                case _:
                    say(HELP, label="commands", style="cyan")
        except ReasonError as e:
            say(str(e), label="error", style="bold red")
        return True

    def _turn(self, work: Callable[[Sequence[Sink]], Awaitable[Answer]]) -> None:
        """Answer a message, and print what it gives; an error leaves the conversation as it is."""
        from ..core.errors import ReasonError
        from .render.answer import print_answer, print_notes
        from .render.run_status import RunStatus
        from .render.tool_calls import ToolLines, print_pending
        from .terminal_run import TextStream, attended

        status = RunStatus()
        stream: TextStream | None = None

        async def answer() -> Answer:
            nonlocal stream
            task = asyncio.current_task()
            assert task is not None
            stream = TextStream(status.close if sys.stdout.isatty() else lambda: None, task.cancel)
            with attended(self._reasoner, status, self._approver):
                return await work([status, stream, ToolLines()])

        try:
            with status:
                answered = self._await(answer(), lambda: status.note("stopping"))
        except asyncio.CancelledError:
            say("interrupted: /resume continues, /undo removes the question")
            return
        except ReasonError as e:
            say(str(e), label="error", style="bold red")
            return
        if self._conversation.taken_back:
            text = truncate(one_line(self._conversation.taken_back), 80)
            say(f'"{text}" had failed without effects, and is no part of the conversation', label="note", style="cyan")
        printed, writer = ("", None) if stream is None else (stream.printed, stream.writer)
        print_answer(answered, printed=printed, writer=writer)
        print_notes(answered, status.exhausted, value=None, with_summary=False)
        if answered.pending:
            print_pending(answered.pending, shlex.join(["reason", "runs", "resume", answered.run_id, *self._flags]))

    def _await(self, work: Any, on_first: Callable[[], None] = lambda: None) -> Any:
        return run_interruptible(work, on_first, runner=self._runner)


def read_message() -> str | None:
    """The next line of standard input, with a prompt on a terminal; None at its end."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        line = sys.stdin.readline()
        return line.strip() if line else None
    with suppress(ImportError):
        import readline  # noqa: F401 - editing and history of the line
    try:
        return input("> ").strip()
    except EOFError:
        write_line("")
        return None


def save(conversation: Conversation, path: Path) -> None:
    """Write a conversation, as JSON if the file's name ends so, else as text.

    Raises:
        StoreError: The file cannot be written.
    """
    from ..core.errors import StoreError

    messages = conversation.messages
    if path.suffix == ".json":
        text = json.dumps([m.model_dump(mode="json", exclude_defaults=True) for m in messages], indent=2) + "\n"
    else:
        parts = [
            f"{m.role}: {m.content}" + "".join(f"\n[calls {c.name}({c.arguments})]" for c in m.tool_calls)
            for m in messages
        ]
        text = "\n\n".join(parts) + "\n"
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as e:
        raise StoreError(f"cannot write {path}: {e.strerror}", hint="choose another file") from e
    say(f"{len(messages)} messages in {path}", label="saved", style="cyan")
