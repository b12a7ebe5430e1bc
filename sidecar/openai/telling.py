"""`Telling`: from a run's events to what a client reads of it while it goes on: thoughts, and text that is certain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...core.answer import Candidate
from ...core.events import (
    CallFinished,
    CallStarted,
    EventFields,
    EventsDropped,
    SampleFinished,
    SolutionFound,
    StageFinished,
    StageStarted,
    TextDelta,
)
from ...core.model_roles import CHAIR
from ...core.run import RunConfig
from ...reasoning.sampled_chains import SampledChains
from ...reasoning.strategy import STRATEGIES
from .said_text import SaidText
from .thought_lines import line_of
from .thoughts import Piece, ThoughtSplitter

Key = tuple[int, int, int]
"""A sample: (call, request, sample)."""

WRITERS = frozenset({"main", "small", CHAIR})
"""Roles whose texts are thoughts; a judge's are not, but for what is told of it in lines. Jurors are writers too."""


@dataclass(frozen=True)
class _Call:
    requests: int
    samples: int


class Telling:
    """Tells a run.

    Samples are told one after the other, each whole and with its number where there are several: the one that came
    first as it is written, the others once it is done. Lines stand between them.

    Where a text is sure to be the answer's, it is given out as content while it is generated: see `certain_call`.

    Args:
        config: The run's configuration.
        said: Takes the answer's text.
        opened: Whether texts of its main model begin inside a thought.
        after: Number of the last event before text was listened to: of a call that began earlier, text was missed.

    Attributes:
        solutions: The chosen candidates of all solutions so far, the newest first.
        apart: What came apart from texts that have thoughts of their own, by text: their tokens and characters.
    """

    def __init__(self, config: RunConfig, said: SaidText, *, opened: bool = False, after: float = 0) -> None:
        self.solutions: list[Candidate] = []
        self.apart: dict[str, tuple[int, int]] = {}
        self._said = said
        self._until_direct = certain_call(config)
        self._splitter = ThoughtSplitter(opened=opened)
        self._after = after
        self._direct: int | None = None
        self._heard = 0
        """Characters told of the sample that is being told."""
        self._gap = False
        self._in_line = False
        self._verifies = bool(config.verify)
        self._calls: dict[int, _Call] = {}
        self._writing: dict[Key, list[str]] = {}
        self._open: Key | None = None
        self._later: list[str] = []
        self._verifying = False

    @property
    def late(self) -> bool:
        """Whether thoughts were given out as content, since nobody had seen them begin."""
        return self._splitter.late

    def take(self, event: EventFields) -> list[Piece]:
        """What is to be told of an event."""
        match event:
            case CallStarted(operation="generate" | "workers"):
                self._begin(event)
            case TextDelta():
                return self._write(event)
            case SampleFinished():
                return self._end(event)
            case CallFinished():
                return self._close(event.parent)
            case EventsDropped():
                self._gap = True
            case SolutionFound(solution=solution):
                found = [] if solution.best is None else [solution.best]
                self.solutions = [*found, *self.solutions]
            case StageStarted(stage="verify"):
                self._verifying = True
            case StageFinished(stage="verify"):
                self._verifying = False
        if isinstance(event, StageStarted) and event.stage == "verify" and not self._verifies:
            return []
        line = line_of(event)
        return self._tell(f"{line}\n", alone=True) if line else []

    def finish(self) -> list[Piece]:
        """What was held back."""
        left = [piece for piece in self._splitter.end() if piece.kind == "reasoning"]
        return [*left, *(piece for call in list(self._calls) for piece in self._close(call))]

    # -- samples

    def _begin(self, event: CallStarted) -> None:
        if self._verifying or not (event.role in WRITERS or event.role.startswith("juror")):
            return
        self._until_direct -= 1
        if self._until_direct == 0 and event.operation == "generate" and event.samples == 1:
            self._direct, self._heard = event.number, 0
        else:
            self._calls[event.number] = _Call(event.requests, event.samples)

    def _write(self, event: TextDelta) -> list[Piece]:
        call, new = event.parent, event.reasoning + event.text
        if self._gap:  # of every call before this text, some may be missing: those samples are told when they are whole
            self._gap, self._after = False, event.number
            self._writing = {key: text for key, text in self._writing.items() if key == self._open}
        if call is None or call <= self._after:
            return []
        if call == self._direct:
            self._heard += len(new)
            return self._content(event.reasoning, event.text)
        if call not in self._calls:
            return []
        key = (call, event.request, event.sample)
        if self._open is None and key not in self._writing:
            self._writing[key] = [new]
            return self._show(key)
        self._writing.setdefault(key, []).append(new)
        if key != self._open:
            return []
        self._heard += len(new)
        return self._thought(new)

    def _end(self, event: SampleFinished) -> list[Piece]:
        call, done = event.parent, event.completion
        if call is None or not done.ok:
            return []
        if done.reasoning:
            self.apart[done.text] = (done.usage.reasoning_tokens, len(done.reasoning))
        whole = done.reasoning + done.text + "".join(f"{c.name}({c.arguments})" for c in done.tool_calls)
        if call == self._direct:
            if self._heard or self._said.said:
                return []
            return self._content(done.reasoning, done.text)
        if call not in self._calls:
            return []
        key = (call, event.request, event.sample)
        if key == self._open:
            return self._thought(whole[self._heard :]) + self._shut()
        self._writing.pop(key, None)
        return self._tell(f"{self._label(key)}{whole}\n\n")

    def _close(self, call: int | None) -> list[Piece]:
        """Tell what is left of a call's samples: those that were cut short, and workers, which have no end."""
        if call is None or (known := self._calls.pop(call, None)) is None:
            return []
        pieces: list[Piece] = []
        if self._open is not None and self._open[0] == call:
            pieces += self._shut()
        for key in [k for k in self._writing if k[0] == call]:
            text = "".join(self._writing.pop(key))
            pieces += self._tell(f"{self._label(key, known)}{text}\n\n")
        return pieces

    def _show(self, key: Key) -> list[Piece]:
        """Begin to tell a sample, with what there is of it."""
        begun = "".join(self._writing[key])
        self._open, self._heard = key, len(begun)
        return self._thought(self._label(key) + begun)

    def _shut(self) -> list[Piece]:
        """End the sample that is being told, tell what waited for that, and go on with the next one under way."""
        if self._open is not None:
            self._writing.pop(self._open, None)
        self._open = None
        waited, self._later = self._later, []
        pieces = self._thought("\n\n" + "".join(waited))
        following = min(self._writing, default=None)
        return pieces if following is None else pieces + self._show(following)

    def _label(self, key: Key, call: _Call | None = None) -> str:
        call = call or self._calls[key[0]]
        _, request, sample = key
        if call.requests > 1 and call.samples > call.requests:
            return f"[{request + 1}.{sample + 1}] "
        if call.requests > 1:
            return f"[{request + 1}] "
        return f"[{sample + 1}] " if call.samples > 1 or sample else ""

    # -- out

    def _tell(self, text: str, *, alone: bool = False) -> list[Piece]:
        """Tell something that is no part of the sample that is being told."""
        if self._open is not None:
            self._later.append(text)
            return []
        return self._thought(f"\n{text}" if alone and self._in_line else text)

    def _thought(self, text: str) -> list[Piece]:
        if not text:
            return []
        self._in_line = not text.endswith("\n")
        return [Piece("reasoning", text)]

    def _content(self, reasoning: str, text: str) -> list[Piece]:
        pieces = self._thought(reasoning)
        for piece in self._splitter.feed(text):
            if piece.kind == "reasoning":
                self._said.part()
                pieces += self._thought(piece.text)
            elif (new := self._said.add(piece.text)) != "":
                pieces.append(Piece("content", new))
        return pieces


def certain_call(config: RunConfig) -> int:
    """Which call of a writer, from 1, generates the beginning of the answer's text, whatever happens; 0 if none does.

    So does that of one chain that nobody chooses among others. Where an answer that does not pass verification is asked
    for again, or refused, no text is certain before the end.
    """
    if config.verify and (config.repairs or config.require_verified):
        return 0
    if config.strategy == "cot":
        if config.parameters.get("json_schema") is None:
            return 1
        return 0 if config.question.offered_tools else 2  # the JSON behind the chain, unless that calls tools
    kind = STRATEGIES.load(config.strategy).Config
    return int(issubclass(kind, SampledChains) and config.parameters.get("n") == 1)


def whole_thoughts(pieces: Sequence[Piece]) -> str:
    """The thoughts among pieces, as one text."""
    return "".join(piece.text for piece in pieces if piece.kind == "reasoning").strip()
