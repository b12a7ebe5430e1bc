"""Approvals at the terminal: a tool call is shown, and the user approves, edits or rejects it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal

from ..core.errors import UserError
from ..core.messages import parse_json
from .interrupts import LineReader, can_read_terminal
from .render.console import printable, say, truncate
from .render.tool_calls import print_details

if TYPE_CHECKING:
    from ..agents.loop.records import Decision
    from ..core.types import PendingToolCall

MAX_ARGUMENT_CHARS = 4_000
_EFFECTS = {"read": "changes nothing", "idempotent": "changes something once", "write": "changes something"}


def can_ask() -> bool:
    """Whether the user can be asked: standard input and standard error are a terminal, with this process in front."""
    return can_read_terminal() and sys.stderr.isatty()


class TerminalApprover:
    """Asks the user about tool calls, one at a time."""

    def __init__(self) -> None:
        self._reader = LineReader()
        self._paused: Callable[[], AbstractContextManager[None]] = nullcontext
        self._always: set[str] = set()
        self._lock = asyncio.Lock()

    def attach(self, reader: LineReader, paused: Callable[[], AbstractContextManager[None]]) -> None:
        """Read lines from here, and remove the progress line meanwhile."""
        self._reader, self._paused = reader, paused

    async def __call__(self, call: PendingToolCall) -> Decision | None:
        """The user's decision; None, for Ctrl-D or "wait", leaves the run waiting."""
        async with self._lock:
            if call.question == "approval" and call.tool in self._always:
                return _decision("approve")
            with self._paused():
                return await (self._outcome(call) if call.question == "outcome" else self._approval(call))

    async def _approval(self, call: PendingToolCall) -> Decision | None:
        say(f"{call.tool} {_EFFECTS[call.effect]} ({call.effect}):")
        _show(call.arguments)
        print_details(call)
        while True:
            match await self._ask(f"Approve? [y]es, [n]o, [e]dit, [a]lways {call.tool}, [w]ait: "):
                case "y" | "yes":
                    return _decision("approve")
                case "a" | "always":
                    self._always.add(call.tool)
                    return _decision("approve")
                case "n" | "no":
                    reason = await self._ask("Reason, for the model (Enter for none): ", lower=False)
                    return _decision("reject", reason=reason or "")
                case "e" | "edit":
                    edited = await self._edited()
                    if edited is not None:
                        return _decision("edit", arguments=edited)
                case None | "w" | "wait":
                    return None
                case _:
                    pass

    async def _edited(self) -> str | None:
        """Arguments that the user typed; None to ask again."""
        text = await self._ask("Arguments as JSON, on one line: ", lower=False)
        try:
            parsed = parse_json(text or "")
        except ValueError as e:
            say(f"this is no JSON: {e}")
            return None
        if not isinstance(parsed, dict):
            say("this is no JSON object")
            return None
        return text

    async def _outcome(self, call: PendingToolCall) -> Decision | None:
        say(f"{call.tool} was interrupted, and may have taken effect:")
        _show(call.arguments)
        while True:
            match await self._ask("Did it take effect? [y]es, [n]o, [w]ait: "):
                case "y" | "yes":
                    return _decision("done")
                case "n" | "no":
                    return _decision("failed")
                case None | "w" | "wait":
                    return None
                case _:
                    pass

    async def _ask(self, prompt: str, *, lower: bool = True) -> str | None:
        sys.stderr.write(prompt)
        sys.stderr.flush()
        line = await self._reader.read()
        if line is None:
            sys.stderr.write("\n")
            return None
        return line.strip().lower() if lower else line.strip()


def parse_decisions(texts: Sequence[str]) -> dict[str, Decision]:
    """Decisions by the IDs of calls, from `CALL=approve` and `CALL=reject`.

    Raises:
        UserError: One has another form.
    """
    decisions: dict[str, Decision] = {}
    for text in texts:
        call, _, kind = text.partition("=")
        if kind not in ("approve", "reject") or not call:
            raise UserError(f"--decide {text!r} is no decision", hint="write CALL=approve or CALL=reject")
        decisions[call] = _decision("approve" if kind == "approve" else "reject")
    return decisions


def _decision(
    kind: Literal["approve", "edit", "reject", "done", "failed"], *, arguments: str | None = None, reason: str = ""
) -> Decision:
    from ..agents.loop.records import Decision

    return Decision(kind=kind, arguments=arguments, reason=reason, by="terminal", at=time.time())


def _show(arguments: str) -> None:
    """Print arguments as indented JSON, or as the model wrote them."""
    try:
        text = json.dumps(json.loads(arguments or "{}"), indent=2, ensure_ascii=False)
    except ValueError:
        text = arguments
    lines = printable(truncate(text, MAX_ARGUMENT_CHARS)).splitlines()
    sys.stderr.write("".join(f"  {line}\n" for line in lines))
