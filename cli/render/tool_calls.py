"""Tool calls on standard error: a line when one starts, a line when it has ended, and what a waiting run needs."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.events import Event, RunStarted, StrategyNote, ToolFinished, ToolStarted
from ...core.messages import ToolCall
from ...core.types import PendingToolCall
from .console import err, one_line, print_line, printable, say, truncate

MAX_CALL_CHARS = 160
MAX_RESULT_CHARS = 120
MAX_QUOTATION_CHARS = 300


class ToolLines:
    """An event sink that prints a line for each start and end of a tool call, and for the choice of a trajectory.

    Of several trajectories each line has the number: `[2/5] → search(query="moon")`.
    """

    def __init__(self) -> None:
        self._trajectories = 1

    def __call__(self, event: Event) -> None:
        """Print the line of an event."""
        number = getattr(event, "trajectory", 0)
        own = f"[{number}/{self._trajectories}] " if number else ""
        if isinstance(event, RunStarted):
            self._trajectories = event.trajectories
        elif isinstance(event, ToolStarted):
            say(f"{own}→ {call_text(event.tool, event.arguments)}")
        elif isinstance(event, ToolFinished):
            first = next((line for line in event.text.splitlines() if line.strip()), "")
            facts = [f"{len(event.text):,} characters", "recorded" if event.is_replayed else f"{event.seconds:.1f} s"]
            say(f"{own}← {event.tool}: {truncate(one_line(first), MAX_RESULT_CHARS)} ({', '.join(facts)})")
        elif isinstance(event, StrategyNote) and event.name == "trajectories.chosen":
            say(str(event.data["choice"]))


def call_text(tool: str, arguments: str, max_chars: int = MAX_CALL_CHARS) -> str:
    """A call on one line: `search(query="moon", k=3)`."""
    return truncate(one_line(ToolCall(name=tool, arguments=arguments).text), max_chars)


def print_details(call: PendingToolCall) -> None:
    """Print why a call needs an approval or what it changes, and what its check has quoted."""
    from rich.text import Text

    for line in call.note.splitlines():
        print_line(err(), Text(f"  {printable(line)}"))
    if (check := call.write_check) is not None:
        for source, quotation in (("you", check.request), ("the policy", check.policy)):
            if quotation:
                say(f'  {source}: "{truncate(one_line(quotation), MAX_QUOTATION_CHARS)}"')


def print_pending(pending: Sequence[PendingToolCall], resume: str) -> None:
    """Print the calls that a run waits for, and the command that continues it."""
    for call in pending:
        shown = call_text(call.tool, call.arguments)
        if call.question == "outcome":
            say(f"{shown} was interrupted, and may have taken effect", label="waiting", style="yellow")
        elif call.question == "approval":
            say(f"{shown} ({call.effect}) needs an approval", label="waiting", style="yellow")
            print_details(call)
        else:
            say(f"{shown} needs a result from the caller", label="waiting", style="yellow")
    approvals = [f"--decide {call.id[:8]}=approve" for call in pending if call.question == "approval"]
    outcomes = ["--assume done"] if any(call.question == "outcome" for call in pending) else []
    remedies = {"--decide": "or =reject", "--assume": "or failed"}
    hint = " ".join(text for flag, text in remedies.items() if any(o.startswith(flag) for o in (*approvals, *outcomes)))
    say(" ".join([resume, *approvals, *outcomes]) + (f" ({hint})" if hint else ""), label="to continue")
