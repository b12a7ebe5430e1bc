"""`check_strategy`: the promises of a strategy, each tried on a model that costs nothing.

`PlainModel`: a language model that needs no weights, whose texts follow from prompt, seed and index alone.

One run of a strategy by itself: on a model that counts, with a ledger, a store and every event kept.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import tempfile
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import JsonValue

from ..core.budget import Budget
from ..core.errors import BackendUnavailable, CapabilityMissing
from ..core.events import (
    CallFinished,
    CallStarted,
    Event,
    NodesSearched,
    SearchEnded,
    StageFinished,
    StageStarted,
)
from ..core.messages import (
    Chunk,
    Completion,
    NextTokenDistribution,
    Prompt,
    Request,
    ScoredContinuation,
    TopToken,
    Usage,
)
from ..core.run import Run, RunConfig
from ..core.store.protocol import RunStore
from ..core.store.sqlite import SqliteStore
from ..core.types import Question, Solution
from ..serving.metered.model import MeteredModel
from ..serving.model import Capabilities, Feature, Listener
from ..serving.streaming import stream_of
from .strategy import Models, Parameters, Stability, Strategy, validate_parameters

REPLIES = (
    "First I add the two numbers.\n\n2 + 3 = 5.\n\nThe answer is 5.",
    "Two and three are five.\n\nThe answer is 5.",
    "I count on my fingers.\n\nThe answer is 6.",
    "I do not know.",
)
"""What it says where it is given nothing else: right, wrong and useless texts, of several steps and lengths."""


class PlainModel:
    """A `LanguageModel` whose tokens are words.

    A text is drawn from `replies` by the prompt, the request's seed and the sample's index; at temperature 0 by the
    prompt alone. Log-probabilities are made up, and the same for the same word. It tells how many tokens it wrote, so
    that a strategy that goes around its budget is found out.

    Args:
        replies: The texts.
        name: Its name.
        hold_after: After so many tokens and measurements it does no more until it is cancelled; None never does so.
        silent: It refuses to write anything; for runs that must find everything in the store.

    Attributes:
        written: Tokens it wrote, whoever asked for them.
        measured: Prompts that it was asked about the next token of, and continuations that it scored.
        holding: Set once it holds.
    """

    def __init__(
        self,
        replies: Sequence[str] = REPLIES,
        *,
        name: str = "conformance/plain",
        hold_after: int | None = None,
        silent: bool = False,
    ) -> None:
        self.name = name
        self.identity = f"{name}@1"
        self.written = 0
        self.measured = 0
        self.holding = asyncio.Event()
        self._replies = tuple(replies)
        self._hold_after = hold_after
        self._silent = silent

    @property
    def capabilities(self) -> Capabilities:
        """All that words allow: no hooks, no schemas, no shared caches."""
        return Capabilities(
            logprobs=True, top_logprobs=20, full_vocabulary=True, scoring=True, prefix=True, seed=True, tools=True
        )

    def count_tokens(self, prompt: Prompt) -> int:
        """Words of the prompt."""
        return len(_words(_shown(prompt)))

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        """See `LanguageModel.generate`."""
        if self._silent:
            raise BackendUnavailable("a sample was asked for that the first run did not make")
        for request in requests:
            if request.sampling.logits_processors:
                raise CapabilityMissing("hooks", self.name)
            if request.sampling.json_schema is not None:
                raise CapabilityMissing("json_schema", self.name)
        writers = [_Writer(i, r, index, self._text_of(r, index)) for i, r in enumerate(requests) for index in r.indices]
        while under_way := [w for w in writers if w.completion is None]:
            await asyncio.sleep(0)
            for writer in under_way:
                await self._hold()
                self.written += 1
                chunk = writer.write(self.count_tokens(writer.request.prompt))
                if listener is not None:
                    listener(chunk)
        done = iter(writers)
        return [[next(done).finished() for _ in r.indices] for r in requests]

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """See `LanguageModel.stream`."""
        async for piece in stream_of(self.generate, request):
            yield piece

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        """See `LanguageModel.score`."""
        if self._silent:
            raise BackendUnavailable("a score was asked for that the first run did not take")
        asked = self.count_tokens(prompt)
        scored = []
        for continuation in continuations:
            await self._hold()
            self.measured += 1
            words = _words(continuation) if isinstance(continuation, str) else [str(i) for i in continuation]
            scored.append(
                ScoredContinuation(
                    token_ids=tuple(map(_id, words)),
                    logprobs=tuple(map(_logprob, words)),
                    is_greedy=False,
                    usage=Usage(prompt_tokens=asked + len(words)),
                )
            )
        return scored

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        """See `LanguageModel.next_token`; a yes and a no share most of the probability."""
        if self._silent:
            raise BackendUnavailable("a distribution was asked for that the first run did not take")
        found = []
        for prompt in prompts:
            await self._hold()
            self.measured += 1
            yes = 0.3 + 0.1 * (zlib.crc32(_shown(prompt).encode()) % 5)
            chances = {"Yes": yes, "No": 0.95 - yes, "So": 0.05}
            ranked = sorted(chances.items(), key=lambda pair: -pair[1])[:top]
            found.append(
                NextTokenDistribution(
                    token_ids=tuple(_id(word) for word, _ in ranked),
                    tokens=tuple(word for word, _ in ranked),
                    logprobs=tuple(math.log(p) for _, p in ranked),
                    entropy=-sum(p * math.log(p) for p in chances.values()),
                    support="full",
                    usage=Usage(prompt_tokens=self.count_tokens(prompt)),
                )
            )
        return found

    async def aclose(self) -> None:
        """Hold nothing."""

    async def _hold(self) -> None:
        if self._hold_after is not None and self.written + self.measured >= self._hold_after:
            self.holding.set()
            await asyncio.Event().wait()

    def _text_of(self, request: Request, index: int) -> str:
        drawn = f"{request.sampling.seed}/{index}" if request.sampling.temperature > 0 else ""
        return random.Random(f"{_shown(request.prompt)}/{drawn}").choice(self._replies)  # noqa: S311 (no secret)


class _Writer:
    """One sample being written, a word at a time."""

    def __init__(self, position: int, request: Request, index: int, text: str) -> None:
        self.position = position
        self.request = request
        self.index = index
        self.completion: Completion | None = None
        self._left = _words(text)
        self._said: list[str] = []

    def write(self, prompt_tokens: int) -> Chunk:
        """The next word, or the end of the text."""
        sampling, before = self.request.sampling, "".join(self._said)
        word = self._left.pop(0) if self._left else ""
        self._said.append(word)
        text, stopped = before + word, None
        for stop in sampling.stop:
            if stop in text:
                text, stopped = text[: text.index(stop)], stop
        if stopped is not None or not word or len(self._said) >= sampling.max_tokens:
            first = self.index == self.request.indices[0]
            self.completion = Completion(
                text=text,
                token_ids=tuple(map(_id, self._said)),
                logprobs=tuple(map(_logprob, self._said)),
                top_logprobs=tuple(_likely(w, sampling.top_logprobs) for w in self._said)
                if sampling.top_logprobs
                else None,
                finish_reason="stop" if stopped is not None or not word else "length",
                stop_reason=stopped if stopped is not None else (None if word else ""),
                usage=Usage(prompt_tokens=prompt_tokens if first else 0, completion_tokens=len(self._said)),
                sample_index=self.index,
            )
        return Chunk(
            request=self.position,
            sample_index=self.index,
            text=text[len(before) :],
            token_ids=(_id(word),),
            logprobs=(_logprob(word),),
            completion=self.completion,
        )

    def finished(self) -> Completion:
        """What it came to."""
        assert self.completion is not None
        return self.completion


def _shown(prompt: Prompt) -> str:
    messages = "\n".join(f"{m.role}: {m.content}" for m in prompt.messages)
    return f"{prompt.text or messages}\n{prompt.prefix}"


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)


def _id(word: str) -> int:
    return zlib.crc32(word.encode()) % 50_000


def _logprob(word: str) -> float:
    return -(1 + _id(word) % 10) / 10


def _likely(word: str, most: int) -> tuple[TopToken, ...]:
    return (TopToken(token_id=_id(word), token=word, logprob=_logprob(word)),)[:most]


TIMEOUT_S = 20.0
"""How long a strategy may take that was cancelled, or that waits for nothing."""


@dataclass
class Trial:
    """What came of a run.

    Attributes:
        run: The run, with its ledger.
        model: The model.
        solution: What the strategy returned; None if it raised.
        error: What it raised.
        events: Every event, in order.
        left: Names of tasks that still ran when it had ended.
        late: Whether it had not ended within `TIMEOUT_S` seconds.
    """

    run: Run
    model: PlainModel
    solution: Solution | None = None
    error: BaseException | None = None
    events: list[Event] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    late: bool = False


class TrialRunner:
    """Runs a strategy again and again, under names of its own in one store.

    Args:
        kind: The strategy.
        parameters: Parameters that differ from its defaults.
        question: What is asked.
        store: Where runs are kept.
    """

    def __init__(
        self, kind: type[Strategy], parameters: Mapping[str, JsonValue], question: Question, store: RunStore
    ) -> None:
        self.kind = kind
        self._config = validate_parameters(kind.Config, kind.name, parameters)
        self._question = question
        self._store = store

    async def run(
        self,
        name: str,
        *,
        seed: int = 1,
        budget: Budget | None = None,
        hold_after: int | None = None,
        silent: bool = False,
        again: bool = False,
    ) -> Trial:
        """Run it once.

        Args:
            name: The run's name in the store.
            seed: Its seed.
            budget: Its limits.
            hold_after: The model holds after so many tokens and measurements, and the run is cancelled then.
            silent: The model refuses to write.
            again: The run was there before, and goes on.
        """
        config = RunConfig(
            question=self._question,
            strategy=self.kind.name,
            parameters=self._config.model_dump(mode="json"),
            models={"main": "conformance/plain"},
            budget=budget or Budget(),
            seed=seed,
        )
        events: list[Event] = []
        model = PlainModel(hold_after=hold_after, silent=silent)
        run = Run(name, config, self._store, sinks=[events.append], has_started=again)
        if not again:
            await self._store.create_run(run.id, config.model_dump(mode="json"))
        trial = Trial(run, model, events=events)
        before = asyncio.all_tasks()
        models = Models({"main": MeteredModel(model, "main", run)})
        task = asyncio.create_task(self.kind(self._config).solve(self._question, models, run))
        if hold_after is not None:
            held = asyncio.create_task(model.holding.wait())
            await asyncio.wait({task, held}, timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            held.cancel()
            with suppress(asyncio.CancelledError):
                await held
            task.cancel()
        await asyncio.wait({task}, timeout=TIMEOUT_S)
        trial.late = not task.done()
        if task.done():
            trial.error = asyncio.CancelledError() if task.cancelled() else task.exception()
            trial.solution = None if trial.error is not None else task.result()
        trial.left = sorted(_name(t) for t in asyncio.all_tasks() - before - {task})
        for left in asyncio.all_tasks() - before:
            left.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await asyncio.wait({left}, timeout=1.0)
        return trial


def _name(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", repr(task))


QUESTION = Question(text="What is 2 + 3?")
ROLES = frozenset({"main", "small", "judge", "chair", "jury", "reward", "embedding", "knowledge"})


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        check: The promise, in a few words.
        wrong: What is wrong; empty if it is kept.
    """

    check: str
    wrong: str = ""

    @property
    def ok(self) -> bool:
        """Whether the promise is kept."""
        return not self.wrong


class ConformanceError(AssertionError):
    """A strategy does not keep its promises; says which and how."""


async def assert_conforms(
    kind: type[Strategy], parameters: Mapping[str, JsonValue] | None = None, *, question: Question = QUESTION
) -> None:
    """Check a strategy, for a test of one's own.

    Args:
        kind: The strategy.
        parameters: Parameters that differ from its defaults.
        question: What is asked.

    Raises:
        NotConforming: It breaks a promise; names all that it breaks.
        UserError: The parameters are not allowed.
    """
    wrong = [f for f in await check_strategy(kind, parameters, question=question) if not f.ok]
    if wrong:
        raise ConformanceError(f"{kind.name}: " + "; ".join(f"{f.check}: {f.wrong}" for f in wrong))


async def check_strategy(
    kind: type[Strategy], parameters: Mapping[str, JsonValue] | None = None, *, question: Question = QUESTION
) -> list[CheckResult]:
    """Try every promise of a strategy on `PlainModel`.

    It has to be one that a single language model without hooks, schemas and a shared cache can serve; what else it
    needs is for its own tests. Nothing is fetched, and a temporary store is removed in the end.

    Args:
        kind: The strategy.
        parameters: Parameters that differ from its defaults.
        question: What is asked.

    Returns:
        A finding for every promise, in the order in which they are tried.

    Raises:
        UserError: The parameters are not allowed.
    """
    found = [CheckResult("declares itself", _declared(kind))]
    lacking = kind.requires - {f for f in get_args(Feature) if PlainModel().capabilities.has(f)} if found[0].ok else ()
    if lacking:
        found.append(CheckResult("can be checked", f"the plain model has no {', '.join(sorted(lacking))}"))
    if not all(f.ok for f in found):
        return found
    async with _store() as store:
        trials = TrialRunner(kind, parameters or {}, question, store)
        whole = await trials.run("whole")
        found.append(CheckResult("answers", _answered(whole)))
        if not found[-1].ok:
            return found
        found.append(CheckResult("pays for everything", _paid(whole)))
        found.append(CheckResult("gives the same for the same seed", _same(whole, await trials.run("twin"))))
        found.append(
            CheckResult("replays without a model", _same(whole, await trials.run("whole", silent=True, again=True)))
        )
        found.append(CheckResult("keeps to budgets", await _keeps_to_budgets(trials, whole)))
        stopped = [await trials.run(f"held-{n}", hold_after=n) for n in _moments(whole)]
        found.append(CheckResult("ends when it is cancelled", next((w for t in stopped if (w := _ended(t))), "")))
        resumed = [await trials.run(t.run.id, again=True) for t in stopped]
        found.append(CheckResult("resumes", next((w for t in resumed if (w := _same(whole, t))), "")))
        found.append(
            CheckResult("balances its events", next((w for t in [whole, *stopped] if (w := _balanced(t))), ""))
        )
    return found


@asynccontextmanager
async def _store() -> AsyncIterator[SqliteStore]:
    with tempfile.TemporaryDirectory(prefix="reason-conformance-") as folder:
        store = await SqliteStore.open(Path(folder) / "runs.sqlite3")
        try:
            yield store
        finally:
            await store.aclose()


def _declared(kind: type[Strategy]) -> str:
    missing = [a for a in ("name", "summary", "paper", "stability", "requires", "roles") if not hasattr(kind, a)]
    if missing:
        return f"it has no {', '.join(missing)}"
    if not kind.name or not kind.summary or "\n" in kind.summary:
        return "name and summary are one line each"
    if kind.stability not in get_args(Stability):
        return f"its stability is none of {', '.join(get_args(Stability))}"
    if unknown := kind.requires - set(get_args(Feature)):
        return f"it requires features that there are not: {', '.join(sorted(unknown))}"
    if strange := set(kind.roles) - ROLES:
        return f"it has roles that there are not: {', '.join(sorted(strange))}"
    config = getattr(kind, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Parameters)):
        return "its Config is no subclass of Parameters"
    return ""


def _answered(trial: Trial) -> str:
    if trial.late:
        return "it did not end"
    if trial.error is not None:
        return f"it raised {type(trial.error).__name__}: {trial.error}"
    solution = trial.solution
    if not isinstance(solution, Solution):
        return f"it returned {type(solution).__name__}, and no Solution"
    if solution.chosen is None:
        return "it chose no candidate"
    if Solution.model_validate_json(solution.model_dump_json()) != solution:
        return "its solution is not the same after it was written as JSON and read again"
    if trial.left:
        return f"tasks of it still ran when it had answered: {', '.join(trial.left)}"
    return ""


def _paid(trial: Trial) -> str:
    charged = int(trial.run.ledger.used("tokens"))
    if charged != trial.model.written:
        return f"the model wrote {trial.model.written} tokens, and the run was charged {charged}"
    return ""


def _same(first: Trial, second: Trial) -> str:
    if wrong := _answered(second):
        return wrong
    assert first.solution is not None
    assert second.solution is not None
    one, other = first.solution.model_dump(mode="json"), second.solution.model_dump(mode="json")
    if differing := [name for name in one if one[name] != other[name]]:
        return f"{', '.join(differing)} of the solution differ"
    return ""


async def _keeps_to_budgets(trials: TrialRunner, whole: Trial) -> str:
    used = int(whole.run.ledger.used("tokens"))
    calls = int(whole.run.ledger.used("calls"))
    budgets = [Budget(tokens=n) for n in sorted({1, max(1, used // 2), max(1, used - 1)})]
    budgets += [Budget(calls=n) for n in sorted({1, max(1, calls - 1)})]
    for number, budget in enumerate(budgets):
        trial = await trials.run(f"budget-{number}", budget=budget)
        limit = f"{budget.tokens} tokens" if budget.tokens is not None else f"{budget.calls} calls"
        if trial.late:
            return f"with {limit} it did not end"
        if trial.error is not None:
            return f"with {limit} it raised {type(trial.error).__name__}: a spent budget is no error"
        if budget.tokens is not None and trial.model.written > budget.tokens:
            return f"with {limit} the model wrote {trial.model.written} tokens"
        if trial.run.ledger.exhausted is not None and trial.solution and trial.solution.stopped != "budget":
            return f'with {limit} the budget stopped it, and its solution says stopped="{trial.solution.stopped}"'
    return ""


def _moments(whole: Trial) -> list[int]:
    """How far the model is when a run is cancelled: at its beginning, in its middle, near its end."""
    worked = whole.model.written + whole.model.measured
    return sorted({0, worked // 2, max(0, worked - 1)})


def _ended(trial: Trial) -> str:
    if trial.late:
        return "it went on"
    if trial.error is None:
        return "it swallowed the cancellation and returned"
    if not isinstance(trial.error, asyncio.CancelledError):
        return f"it raised {type(trial.error).__name__} in its place"
    if trial.left:
        return f"tasks of it went on: {', '.join(trial.left)}"
    return ""


def _balanced(trial: Trial) -> str:
    seen: set[int] = set()
    calls: set[int] = set()
    stages: list[str] = []
    searches: dict[str, bool] = {}
    for event in trial.events:
        if event.parent is not None and event.parent not in seen:
            return f"{getattr(event, 'type', 'an event')} stands under an event that is not before it"
        seen.add(event.number)
        match event:
            case CallStarted():
                calls.add(event.number)
            case CallFinished():
                calls.discard(event.parent if event.parent is not None else -1)
            case StageStarted():
                stages.append(event.stage)
            case StageFinished():
                if not stages or stages.pop() != event.stage:
                    return f"stage {event.stage} was finished and not begun"
            case NodesSearched():
                if searches.setdefault(event.search, True) is False:
                    return f"search {event.search} went on behind its end"
            case SearchEnded():
                if searches.get(event.search) is False:
                    return f"search {event.search} ended twice"
                searches[event.search] = False
            case _:
                pass
    if calls:
        return f"{len(calls)} calls were begun and not finished"
    if trial.error is None and stages:
        return f"stage {stages[-1]} was begun and not finished"
    open_ones = [name for name, still in searches.items() if still]
    if trial.error is None and open_ones:
        return f"search {open_ones[0]} has no end"
    return ""
