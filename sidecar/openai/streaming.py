"""Streaming: converts a run's events to thoughts and answer text. Streamed answer text is never retracted.

`EventTranslator` translates events, and `AnswerText` buffers text that may still change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ...core.errors import InvalidResponse
from ...core.events import (
    BudgetCharged,
    BudgetExhausted,
    CallFinished,
    CallStarted,
    CandidateAdded,
    Degraded,
    Event,
    EventsDropped,
    NodesSearched,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleFinished,
    SolutionFinished,
    StageFinished,
    StageStarted,
    TextDelta,
    ToolFinished,
    ToolStarted,
    VerificationFinished,
    VoteUpdated,
)
from ...core.run import RunConfig
from ...core.types import Candidate
from ...core.verdicts import counts_text, verdict_name
from ...reasoning.fusion import SYNTHESIS_STAGE
from ...reasoning.sampling import SamplingConfig
from ...reasoning.strategy import STRATEGIES

if TYPE_CHECKING:
    from .server_tools import ServerTools

PIECE_CHARS = 48
"""Approximate number of characters of a piece when a complete text is streamed."""


class AnswerText:
    """Buffers the answer text and emits the part that is final.

    Leading white space is dropped. Trailing white space and a possible prefix of a stop string are held back. Text
    from a stop string onwards is never emitted.

    Args:
        stop: Stop strings.

    Attributes:
        answer_text: Text emitted so far.
        stopped: Whether the text contained a stop string.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.answer_text = ""
        self.stopped = False

    def add(self, text: str) -> str:
        """Add text and return the text that can be emitted now."""
        if self.stopped:
            return ""
        text = self._held + text
        if not self.answer_text:
            text = text.lstrip()
        cut = stop_at(text, self._stop)
        if cut is not None:
            self.stopped, self._held = True, ""
            return self._release(text[:cut].rstrip())
        sure = text[: len(text) - _partial_stop(text, self._stop)].rstrip()
        self._held = text[len(sure) :]
        return self._release(sure)

    def finish(self, full_text: str, *, late: bool = False) -> str:
        """Return the rest of the answer text.

        Args:
            full_text: Complete answer text.
            late: Whether thoughts were emitted as answer text, so that only the end of the emitted text belongs to it.

        Raises:
            InvalidResponse: The text does not start with the emitted text.
        """
        if full_text.startswith(self.answer_text):
            return self._release(full_text[len(self.answer_text) :])
        if late:
            overlap = next(n for n in range(len(full_text), -1, -1) if self.answer_text.endswith(full_text[:n]))
            return self._release(full_text[overlap:])
        raise InvalidResponse("the answer does not go on as it was streamed", hint="ask again without stream")

    def restart(self) -> None:
        """Begin the text of another turn."""
        self._held = self.answer_text = ""

    def _release(self, text: str) -> str:
        self.answer_text += text
        return text


def stop_at(text: str, stop: Sequence[str]) -> int | None:
    """Start index of the stop string that ends first; None if there is none.

    This matches a model that generates one character at a time. Of several stop strings that end at the same index,
    the longest counts.
    """
    match = [(at + len(s), at) for s in stop if (at := text.find(s)) >= 0]
    return min(match)[1] if match else None


def until_stop(text: str, stop: Sequence[str]) -> str:
    """The text up to its first stop string."""
    cut = stop_at(text, stop)
    return text if cut is None else text[:cut].rstrip()


def in_pieces(text: str, size: int = PIECE_CHARS) -> list[str]:
    """Split a text into pieces of at most `size` characters, after white space where possible."""
    pieces: list[str] = []
    start = 0
    while len(text) - start > size:
        end = max(text.rfind(" ", start, start + size), text.rfind("\n", start, start + size)) + 1
        end = end if end > start else start + size
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]] if start < len(text) else pieces


def _partial_stop(text: str, stop: Sequence[str]) -> int:
    """Length of the longest suffix of a text that is a proper prefix of a stop string."""
    longest = max(map(len, stop), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        end = text[-length:]
        if any(s.startswith(end) for s in stop):
            return length
    return 0


Kind = Literal["reasoning", "content", "tools", "call", "result"]


class Piece(NamedTuple):
    """A piece of a stream: thoughts or answer text; if tools are shown, those of a server, or a call and its result.

    Attributes:
        item: Fields of a tool's output item; of a result, those that it sets.
    """

    kind: Kind
    text: str = ""
    item: Mapping[str, Any] = MappingProxyType({})


MAX_VOTES = 5
MAX_LINE_CHARS = 60
QUIET_STAGES = frozenset({"route", "solve", "finish"})
STAGES = {
    "verify": "The answer is being verified.",
    "repair": "The answer did not pass: it is asked for again, with what was found.",
}


def line_of(event: Event) -> str:
    """A one-line summary of an event; empty if the event has none."""
    match event:
        case StageStarted(stage=stage):
            return "" if stage in QUIET_STAGES or stage.startswith("turn ") else STAGES.get(stage, f"Stage: {stage}.")
        case VoteUpdated(votes=votes):
            best = [f"{_short(answer)} ({count})" for answer, count in list(votes.items())[:MAX_VOTES]]
            return f"Votes: {', '.join(best)}." if best else ""
        case NodesSearched(search=search, expanded=expanded, nodes=nodes):
            scores = [node.score for node in nodes if node.score is not None]
            best_score = f", best score {max(scores):.2f}" if scores else ""
            ended = sum(node.terminal for node in nodes)
            full_text = f", {ended} of them solutions" if ended else ""
            return f"{search}: {len(expanded)} expanded, {len(nodes)} nodes told{full_text}{best_score}."
        case VerificationFinished(verification=verification):
            return f"Verification: {verdict_name(verification.verdict)}, {counts_text(verification.counts)}."
        case Degraded(what=what):
            return f"Note: {what}."
        case BudgetExhausted(kind="user"):
            return "The answer was requested now."
        case BudgetExhausted(kind=kind, limit=limit):
            return f"The budget of {limit:g} {kind.replace('_', ' ')} is spent."
    return ""


def _short(text: str) -> str:
    """A text on one line, truncated to `MAX_LINE_CHARS`."""
    one = " ".join(text.split())
    return one if len(one) <= MAX_LINE_CHARS else one[: MAX_LINE_CHARS - 1] + "…"


AFTER_THOUGHT = "\n\n"
"""Separates the thought of a sample from its text, where both are streamed as thoughts."""

Key = tuple[int, int, int]
"""Key of a sample: (call, request, sample)."""

WRITERS = frozenset({"main", "small"})
"""Roles whose completions are streamed as thoughts, in addition to jurors. Judges appear only as summary lines."""


_SHOWN_NOWHERE = frozenset({RunStarted, BudgetCharged, CandidateAdded, RunFinished, RunFailed})
"""Types of events that most runs have and that give no pieces."""


@dataclass(frozen=True)
class _CallSamples:
    requests: int
    samples: int


class EventTranslator:
    """Translates the events of one run to pieces of thoughts and content.

    Concurrent samples are emitted one after another, labelled if there are several: the first sample is streamed,
    the others are buffered until it ends. Event summaries appear between samples.

    Completions that certainly start the answer are streamed as content (`answer_call`), and so is text that a strategy
    releases (`TextDelta.answer_start`). Of the calls that generate such text, only the thoughts are streamed besides.
    So it is with a single chain whose answer may be repaired, and which is emitted once it was verified.

    Args:
        config: Run configuration.
        answer_text: Buffer of the answer text.
        after: Number of the last event before the subscription to text. Calls that started earlier are not streamed,
            because some of their text is missing.

    Attributes:
        solutions: Best candidates of the solutions so far, newest first.
        late: Whether thoughts were emitted as content: the model's chat template opens them, which was not known yet.
        tools: The tools that the run executes, if their calls are shown; else None.
    """

    def __init__(self, config: RunConfig, answer_text: AnswerText, *, after: float = 0) -> None:
        self.solutions: list[Candidate] = []
        self.late = False
        self.tools: ServerTools | None = None
        self._answer_text = answer_text
        self._config = config
        # a turn before calls is no answer
        self._until_direct = 0 if config.tools else answer_call(config)
        self._streams_json = streams_json(config)
        self._is_held = config.may_be_repaired and _is_single_chain(config)
        self._after = after
        self._direct: int | None = None
        self._heard = 0
        """Number of characters emitted of the current sample."""
        self._gap = False
        self._in_line = False
        self._verifies = bool(config.verify)
        self._calls: dict[int, _CallSamples] = {}
        self._writing: dict[Key, list[str]] = {}
        self._thinking: set[Key] = set()
        """Samples whose text so far is a thought."""
        self._open: Key | None = None
        self._later: list[str] = []
        self._verifying = False
        self._synthesising = False
        self._synthesis: dict[int, bool] = {}
        """Calls of whose samples only thoughts are emitted, with whether some were."""
        self._released = 0
        """Number of characters that the strategy released and that were taken."""

    def show_tools(self, tools: ServerTools) -> list[Piece]:
        """Emit calls of tools from now on, with the text of each turn as content; returns the pieces before them."""
        self.tools = tools
        return tools.lists()

    def take(self, event: Event) -> list[Piece]:
        """Process an event and return the pieces to emit."""
        if type(event) in _SHOWN_NOWHERE:
            return []
        match event:
            case TextDelta():
                return self._write(event)
            case CallStarted(operation="generate" | "workers"):
                self._begin(event)
            case SampleFinished():
                return self._end(event)
            case CallFinished():
                return self._close(event.parent)
            case EventsDropped():
                self._gap = True
            case SolutionFinished(solution=solution):
                match = [] if solution.best is None else [solution.best]
                self.solutions = [*match, *self.solutions]
                if self.tools is not None and match and match[0].tool_calls:
                    rest = self._answer_text.finish(match[0].text.strip(), late=self.late)
                    return [Piece("content", rest)] if rest else []
            case ToolStarted() | ToolFinished():
                return [] if self.tools is None else self.tools.call(event)
            case StageStarted(stage=stage) if self.tools is not None and stage.startswith("turn "):
                self._answer_text.restart()
                self._until_direct, self._direct = answer_call(self._config), None
            case StageStarted(stage="verify"):
                self._verifying = True
            case StageFinished(stage="verify"):
                self._verifying = False
            case StageStarted(stage=stage) if stage == SYNTHESIS_STAGE:
                self._synthesising = True
            case StageFinished(stage=stage) if stage == SYNTHESIS_STAGE:
                self._synthesising = False
        if isinstance(event, StageStarted) and event.stage == "verify" and not self._verifies:
            return []
        line = line_of(event)
        return self._emit(f"{line}\n", only_text=True) if line else []

    def finish(self) -> list[Piece]:
        """Return the pieces held back."""
        return [piece for call in list(self._calls) for piece in self._close(call)]

    # -- samples

    def _begin(self, event: CallStarted) -> None:
        if self._verifying or not (event.role in WRITERS or event.role.startswith("juror")):
            return
        self._until_direct -= 1
        if self._synthesising or self._is_held:  # a text that is not verified yet is shown nowhere
            self._synthesis[event.number] = False
            return
        is_answer = self._until_direct == 0 or (self._streams_json and event.constrained and self._direct is None)
        if is_answer and event.operation == "generate" and event.samples == 1:
            self._direct, self._heard = event.number, 0
        else:
            self._calls[event.number] = _CallSamples(event.requests, event.samples)

    def _write(self, event: TextDelta) -> list[Piece]:
        call = event.parent
        if event.answer_start is not None:
            return self._take_released(event)
        if call in self._synthesis:
            self._synthesis[call] |= bool(event.thought)
            return self._thought(event.thought)
        if self._gap:  # calls before this event may miss text: their samples are emitted when they are complete
            self._gap, self._after = False, event.number
            self._writing = {key: text for key, text in self._writing.items() if key == self._open}
        if call is None or call <= self._after:
            return []
        if call == self._direct:
            self._heard += len(event.thought + event.text)
            return self._content(event.thought, event.text)
        if call not in self._calls:
            return []
        key = (call, event.request, event.sample)
        if event.thought:
            self._thinking.add(key)
        is_answering = bool(event.text) and key in self._thinking
        if is_answering:
            self._thinking.discard(key)
        new = event.thought + (AFTER_THOUGHT if is_answering else "") + event.text
        if self._open is None and key not in self._writing:
            self._writing[key] = [new]
            return self._show(key)
        self._writing.setdefault(key, []).append(new)
        if key != self._open:
            return []
        self._heard += len(new)
        return self._thought(new)

    def _take_released(self, event: TextDelta) -> list[Piece]:
        """Emit released text, unless text before it was missed: then the rest follows at the end."""
        if event.answer_start != self._released:
            return []
        self._released += len(event.text)
        return self._content("", event.text)

    def _end(self, event: SampleFinished) -> list[Piece]:
        call, done = event.parent, event.completion
        if call is None or not done.ok:
            return []
        thought = "" if done.thought is None else done.thought.text
        if call == self._direct:
            if self._heard or self._answer_text.answer_text:
                self.late |= bool(thought) and not done.text.lstrip().startswith(self._answer_text.answer_text)
                return []
            return self._content(thought, done.text)
        if call in self._synthesis:
            return [] if self._synthesis[call] else self._thought(thought)
        if call not in self._calls:
            return []
        key = (call, event.request, event.sample)
        self._thinking.discard(key)
        calls = "".join(f"{c.name}({c.arguments})" for c in done.tool_calls)
        full_text = thought + (AFTER_THOUGHT if thought and (done.text or calls) else "") + done.text + calls
        if key == self._open:
            return self._thought(full_text[self._heard :]) + self._shut()
        self._writing.pop(key, None)
        return self._emit(f"{self._label(key)}{full_text}\n\n")

    def _close(self, call: int | None) -> list[Piece]:
        """Emit the remaining samples of a call: truncated ones, and workers, which have no `SampleFinished`."""
        if call is None or (known := self._calls.pop(call, None)) is None:
            return []
        pieces: list[Piece] = []
        if self._open is not None and self._open[0] == call:
            pieces += self._shut()
        for key in [k for k in self._writing if k[0] == call]:
            text = "".join(self._writing.pop(key))
            pieces += self._emit(f"{self._label(key, known)}{text}\n\n")
        return pieces

    def _show(self, key: Key) -> list[Piece]:
        """Start emitting a sample, beginning with its buffered text."""
        begun = "".join(self._writing[key])
        self._open, self._heard = key, len(begun)
        return self._thought(self._label(key) + begun)

    def _shut(self) -> list[Piece]:
        """End the current sample, emit the buffered text and continue with the next sample in flight."""
        if self._open is not None:
            self._writing.pop(self._open, None)
        self._open = None
        waited, self._later = self._later, []
        pieces = self._thought("\n\n" + "".join(waited))
        following = min(self._writing, default=None)
        return pieces if following is None else pieces + self._show(following)

    def _label(self, key: Key, call: _CallSamples | None = None) -> str:
        call = call or self._calls[key[0]]
        _, request, sample = key
        if call.requests > 1 and call.samples > call.requests:
            return f"[{request + 1}.{sample + 1}] "
        if call.requests > 1:
            return f"[{request + 1}] "
        return f"[{sample + 1}] " if call.samples > 1 or sample else ""

    # -- output

    def _emit(self, text: str, *, only_text: bool = False) -> list[Piece]:
        """Emit text that is not part of the current sample, after the sample if one is open."""
        if self._open is not None:
            self._later.append(text)
            return []
        return self._thought(f"\n{text}" if only_text and self._in_line else text)

    def _thought(self, text: str) -> list[Piece]:
        if not text:
            return []
        self._in_line = not text.endswith("\n")
        return [Piece("reasoning", text)]

    def _content(self, thought: str, text: str) -> list[Piece]:
        pieces = self._thought(thought)
        if (new := self._answer_text.add(text)) != "":
            pieces.append(Piece("content", new))
        return pieces


def answer_call(config: RunConfig) -> int:
    """Number, from 1, of the writer's call that certainly generates the start of the answer text; 0 if there is none.

    This holds for a single chain. If verification may repair or reject the answer, no text is final before the end.
    """
    if config.question.answer_schema is not None or config.may_be_repaired:
        return 0
    return int(_is_single_chain(config))


def _is_single_chain(config: RunConfig) -> bool:
    if config.strategy == "cot":
        return True
    kind = STRATEGIES.load(config.strategy).Config
    return issubclass(kind, SamplingConfig) and config.parameters.get("n") == 1


def streams_json(config: RunConfig) -> bool:
    """Whether the first call under a JSON Schema generates the answer text.

    JSON that is only prompted for is sent when it is validated.
    """
    if config.question.answer_schema is None or config.may_be_repaired:
        return False
    return config.strategy == "cot" or issubclass(STRATEGIES.load(config.strategy).Config, SamplingConfig)


def join_text(pieces: Iterable[Piece], kind: Kind = "reasoning") -> str:
    """The thoughts or the content among the pieces, as one text."""
    return "".join(piece.text for piece in pieces if piece.kind == kind).strip()
