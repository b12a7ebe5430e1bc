"""Progress of a run, derived from its events; needs neither clock nor terminal."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...core.events import (
    BudgetCharged,
    BudgetExhausted,
    CallStarted,
    ClaimLabelled,
    Event,
    JuryEvent,
    LeafSelected,
    MemoryAssociated,
    NodesSearched,
    OpinionAdded,
    OpinionsMerged,
    OpinionsRanked,
    ReviewAdded,
    RunStarted,
    SampleFinished,
    SearchEnded,
    StageStarted,
    StepRouted,
    StrategyNote,
    TextDelta,
    VoteUpdated,
)
from ...core.types import Question
from .console import plural, truncate
from .growing_tree import GrowingTree, TreeEvent

MAX_CHOICE_CHARS = 12
"""Maximum length of a choice."""


@dataclass
class JuryProgress:
    """Progress of a jury.

    Attributes:
        choices: Choice of each juror, in order; "?" for none, "x" for a failed juror.
        reviews: Number of parsed reviews.
        unparsed: Number of reviews that could not be parsed.
        first: Juror ranked first; None before the ranking.
        source: Origin of the final answer; empty before it exists.
        labels: Number of claims by label.
    """

    choices: list[str] = field(default_factory=list)
    reviews: int = 0
    unparsed: int = 0
    first: int | None = None
    source: str = ""
    labels: dict[str, int] = field(default_factory=dict)

    def take(self, event: JuryEvent) -> None:
        """Update from an event."""
        report = event.report
        match event:
            case OpinionAdded():
                if event.juror == 0:  # a repair, or a resumed run
                    self.choices, self.reviews, self.unparsed, self.first, self.source = [], 0, 0, None, ""
                    self.labels = {}
                choice = report.get("choice")
                self.choices.append("x" if not report.get("ok") else "?" if choice is None else str(choice))
            case ReviewAdded():
                self.reviews += bool(report.get("ok"))
                self.unparsed += not report.get("ok")
            case OpinionsRanked():
                standings = report.get("standings")
                best = standings[0] if isinstance(standings, list) and standings else None
                number = best.get("juror") if isinstance(best, dict) else None
                self.first = number if isinstance(number, int) else None
            case OpinionsMerged():
                self.source = str(report.get("source", ""))
            case ClaimLabelled():
                label = str(report.get("label"))
                self.labels[label] = self.labels.get(label, 0) + 1
            case _:
                pass

    def line(self) -> str:
        """The progress in one line: `B B C; 3 reviews; #0 first; answered by the chair; 2 consistent, 1 uncertain`."""
        parts = [" ".join(truncate(choice, MAX_CHOICE_CHARS) for choice in self.choices)]
        if self.reviews or self.unparsed:
            parts.append(plural(self.reviews, "review") + (f", {self.unparsed} unparsed" if self.unparsed else ""))
        if self.first is not None:
            parts.append(f"#{self.first} first")
        if self.source:
            parts.append("answered by the chair" if self.source == "chair" else "answered by the best opinion")
        if self.labels:
            parts.append(", ".join(f"{count} {label}" for label, count in self.labels.items()))
        return "; ".join(filter(None, parts))


_BUCKETS_PER_S = 4
_RATE_WINDOW_S = 3.0


@dataclass
class CallProgress:
    """A model call in flight.

    Attributes:
        operation: The operation, as in `CallStarted`.
        samples: Number of requested samples.
        done: Number of finished samples.
        tokens: Tokens generated so far, by (request, sample).
        thinking: Part of them that are thoughts.
        answering: Samples whose thought has ended.
    """

    role: str
    model: str
    operation: str
    samples: int
    done: int = 0
    tokens: dict[tuple[int, int], int] = field(default_factory=dict)
    thinking: dict[tuple[int, int], int] = field(default_factory=dict)
    answering: set[tuple[int, int]] = field(default_factory=set)


@dataclass
class SearchProgress:
    """A search in progress, or the last one of its name.

    Attributes:
        expanded: Number of expansions.
        nodes: IDs of the nodes.
        complete: IDs of the complete solutions.
        best: Highest score of a node; None before the first score.
        stopped: Why it ended; None while it runs.
        tree: Its tree.
    """

    expanded: int = 0
    nodes: set[int] = field(default_factory=set)
    complete: set[int] = field(default_factory=set)
    best: float | None = None
    stopped: str | None = None
    tree: GrowingTree = field(default_factory=GrowingTree)

    @property
    def has_started(self) -> bool:
        """Whether the search has reported anything."""
        return bool(self.nodes or self.expanded or self.stopped is not None)

    def take(self, event: TreeEvent) -> None:
        """Update from an event; a node reported again counts once."""
        self.tree.take(event)
        if isinstance(event, SearchEnded):
            self.stopped = event.stopped
        if not isinstance(event, NodesSearched):
            return
        self.expanded += len(event.expanded)
        self.nodes.update(node.id for node in event.nodes)
        self.complete.update(node.id for node in event.nodes if node.terminal)
        scores = [node.score for node in event.nodes if node.score is not None]
        self.best = max(scores if self.best is None else [self.best, *scores], default=None)

    def line(self, search: str) -> str:
        """The progress in one line: `best-first: 12 expanded, 37 nodes, 2 complete, best 0.83`."""
        parts = [f"{self.expanded:,} expanded", plural(len(self.nodes), "node")]
        if self.complete:
            parts.append(f"{len(self.complete):,} complete")
        if self.best is not None:
            parts.append(f"best {self.best:.2f}")
        if self.stopped is not None:
            parts.append("ended" if self.stopped == "done" else f"ended: {self.stopped}")
        return f"{search}: {', '.join(parts)}"


@dataclass
class WorkersProgress:
    """Progress of workers that generate concurrently.

    Attributes:
        names: Their names.
        steps: Finished steps of each.
        writing: Unfinished text of each.
    """

    names: list[str]
    steps: list[list[str]]
    writing: list[str]

    def take(self, event: StrategyNote) -> None:
        """Update from a note; malformed notes are ignored."""
        worker, text, following = (event.data.get(name) for name in ("worker", "text", "next"))
        if not isinstance(worker, int) or not 0 <= worker < len(self.names) or not isinstance(text, str):
            return
        if event.name == "workers.step":
            self.steps[worker].append(text)
            self.writing[worker] = following if isinstance(following, str) else ""
        elif event.name == "workers.asked":
            self.writing[worker] += text


@dataclass
class Progress:
    """Progress of a run.

    Attributes:
        limits: The budget's limits by kind ("tokens", "thinking_tokens", "calls", "seconds", "usd").
        spent: Amounts charged so far, by kind, without the tokens of calls in flight.
        calls: Calls in flight, by the number of their first event.
        samples_done: Number of finished samples of all calls.
        samples_requested: Number of requested samples of all calls.
        num_generations: Number of calls that generate.
        votes: Votes by answer, the most voted first.
        writers: Model of each step of a routed chain: "L" for the large one, "S" for the small one.
        jury: Progress of the jury; None without one.
        workers: Progress of concurrent workers; None without any.
        chains: Letters of the blocks of each attempt, in a chain of blocks.
        searches: The last search of each name, the most recently updated one at the end.
        ran: The strategy that a router chose, and why; empty without a router.
        exhausted: The limit that stopped the run; None if none did.
        question: The question; None before the run starts.
    """

    strategy: str = ""
    model: str = ""
    question: Question | None = None
    stage: str = ""
    limits: dict[str, float] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    calls: dict[int, CallProgress] = field(default_factory=dict)
    samples_done: int = 0
    samples_requested: int = 0
    num_generations: int = 0
    votes: dict[str, int] = field(default_factory=dict)
    writers: list[str] = field(default_factory=list)
    jury: JuryProgress | None = None
    workers: WorkersProgress | None = None
    chains: dict[int, list[str]] = field(default_factory=dict)
    searches: dict[str, SearchProgress] = field(default_factory=dict)
    ran: str = ""
    exhausted: str | None = None
    _recent_tokens: dict[int, int] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens generated so far, including calls in flight."""
        return int(self.spent.get("tokens", 0)) + sum(sum(c.tokens.values()) for c in self.calls.values())

    @property
    def thinking_tokens(self) -> int:
        """Tokens of thoughts so far, including calls in flight."""
        charged = int(self.spent.get("thinking_tokens", 0))
        return charged + sum(sum(c.thinking.values()) for c in self.calls.values())

    @property
    def thinking_now(self) -> int | None:
        """Tokens of the samples that are thinking; None if none is, 0 if the backend does not count them."""
        counts = [
            tokens
            for call in self.calls.values()
            for slot, tokens in call.thinking.items()
            if slot not in call.answering
        ]
        return sum(counts) if counts else None

    def rate(self, now_s: float) -> float | None:
        """Tokens per second over the last seconds; None if there are none.

        Args:
            now_s: Seconds since the start of the run.
        """
        since = now_s - _RATE_WINDOW_S
        recent = {b: n for b, n in self._recent_tokens.items() if b / _BUCKETS_PER_S >= since}
        if not recent:
            return None
        seconds = max(now_s - min(recent) / _BUCKETS_PER_S, 1 / _BUCKETS_PER_S)
        return sum(recent.values()) / seconds

    def take(self, event: Event) -> None:
        """Update from an event."""
        match event:
            case RunStarted():
                self.strategy, self.model = event.strategy, event.models.get("main", "")
                self.question = event.question
            case StageStarted():
                self.stage = event.stage
            case CallStarted():
                self.calls[event.number] = CallProgress(event.role, event.model, event.operation, event.samples)
                if event.operation == "generate":  # other operations produce no samples
                    self.samples_requested += event.samples
                    self.num_generations += 1
            case TextDelta():
                self._grow(event)
            case SampleFinished():
                self._finish(event)
            case BudgetCharged():
                self.spent = {
                    "tokens": event.total_tokens,
                    "thinking_tokens": event.total_thinking_tokens,
                    "prompt_tokens": event.total_prompt_tokens,
                    "calls": event.total_calls,
                    "usd": event.total_usd or 0.0,
                }
                self.limits.update(event.limits)
                self._close_call(event.parent or 0)
            case VoteUpdated():
                self.votes = dict(event.votes)
            case LeafSelected() | MemoryAssociated() | NodesSearched() | SearchEnded():
                self._search(event)
            case BudgetExhausted():
                self.exhausted = event.kind
            case StepRouted():
                del self.writers[event.index :]  # a restarted or resumed chain
                self.writers.append("L" if event.role == "main" else "S")
            case _ if isinstance(event, JuryEvent):
                self.jury = self.jury or JuryProgress()
                self.jury.take(event)
            case StrategyNote(name="block.run"):
                self._block(event)
            case StrategyNote(name="workers.begin"):
                names, writing = event.data.get("names"), event.data.get("writing")
                if isinstance(names, list) and isinstance(writing, list) and len(names) == len(writing):
                    self.workers = WorkersProgress([*map(str, names)], [[] for _ in names], [*map(str, writing)])
            case StrategyNote(name="workers.step" | "workers.asked"):
                if self.workers is not None:
                    self.workers.take(event)
            case StrategyNote(name="auto.chosen" | "question.routed"):
                self.ran = f"{event.data.get('selected_strategy', '')}: {event.data.get('why', '')}"
            case _:
                pass

    def _close_call(self, number: int) -> None:
        """Drop the tokens of a charged call, which are in the total now; workers continue under the same call."""
        call = self.calls.get(number)
        if call is not None and call.operation == "workers":
            call.tokens.clear()
            call.thinking.clear()
        else:
            self.calls.pop(number, None)

    def _block(self, event: StrategyNote) -> None:
        vote, letter = event.data.get("vote"), event.data.get("letter")
        if isinstance(vote, int) and isinstance(letter, str):
            self.chains.setdefault(vote, []).append(letter)

    def _search(self, event: TreeEvent) -> None:
        search = self.searches.get(event.search)
        if search is None or search.stopped is not None:
            search = SearchProgress()
        if search is not next(reversed(self.searches.values()), None):
            self.searches.pop(event.search, None)
            self.searches[event.search] = search
        search.take(event)

    def _grow(self, event: TextDelta) -> None:
        call = self.calls.get(event.parent or 0)
        if call is not None:
            if call.operation == "workers" and self.workers is not None:
                self.workers.writing[event.request] += event.text
            slot = (event.request, event.sample)
            call.tokens[slot] = call.tokens.get(slot, 0) + event.tokens
            if event.thought:
                call.thinking[slot] = call.thinking.get(slot, 0) + (0 if event.text else event.tokens)
            if event.text:
                call.answering.add(slot)
            self._count(event.at_s, event.tokens)

    def _finish(self, event: SampleFinished) -> None:
        self.samples_done += 1
        call = self.calls.get(event.parent or 0)
        if call is None:
            return
        call.done += 1
        slot = (event.request, event.sample)
        tokens = event.completion.usage.completion_tokens
        if not event.replayed:
            self._count(event.at_s, max(0, tokens - call.tokens.get(slot, 0)))
        call.tokens[slot], call.thinking[slot] = tokens, event.completion.usage.thinking_tokens
        call.answering.add(slot)

    def _count(self, at_s: float, tokens: int) -> None:
        bucket = int(at_s * _BUCKETS_PER_S)
        self._recent_tokens[bucket] = self._recent_tokens.get(bucket, 0) + tokens
        for old in [b for b in self._recent_tokens if b < bucket - _RATE_WINDOW_S * _BUCKETS_PER_S]:
            del self._recent_tokens[old]
