"""Conformance tests of strategies: budgets, seeds, cancellation, resuming, replays and events.

`check_strategy` runs a strategy several times on a language model that needs no weights and counts its tokens
(`PlainModel`), with a ledger, a store and all events recorded; `assert_conforms` is the same as an assertion.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import JsonValue

from ..core.budget import Budget
from ..core.concurrency import cancel_and_wait
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
    FinishReason,
    NextTokenDistribution,
    Prompt,
    Request,
    ScoredContinuation,
    TopToken,
    Usage,
)
from ..core.run import Run, RunConfig
from ..core.store.sql import RunStore
from ..core.store.sqlite import SqliteStore
from ..core.types import Question, Solution
from ..serving.metered.model import MeteredModel
from ..serving.model import Capabilities, Feature, Listener
from ..serving.profiles.profile import ModelProfile, OwnSampling
from .strategy import Models, Parameters, Stability, Strategy, Thinking, validate_parameters
from .thinking import thinking_of

TEXTS = (
    "First I add the two numbers.\n\n2 + 3 = 5.\n\nThe answer is 5.",
    "Two and three are five.\n\nThe answer is 5.",
    "I count on my fingers.\n\nThe answer is 6.",
    "I do not know.",
)
"""Default texts: right, wrong and useless ones, of several steps and lengths."""


class PlainModel:
    """A `LanguageModel` whose tokens are words.

    A text is sampled from `texts` by the prompt, the request's seed and the sample's index; at temperature 0 only by
    the prompt. Log-probabilities are invented, and equal for equal words. It counts the tokens that it generates, so
    that a strategy that bypasses its budget is detected.

    Args:
        hold_after: Number of tokens and measurements before the sample or measurement at which it blocks until it is
            cancelled; None never blocks.
        silent: It refuses every request; for runs that must find everything in the store.

    Attributes:
        written: Generated tokens.
        measured: Returned next-token distributions and scored continuations.
        holding: Set once it blocks.
    """

    def __init__(
        self,
        texts: Sequence[str] = TEXTS,
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
        self._texts = tuple(texts)
        self._hold_after = hold_after
        self._silent = silent

    @property
    def capabilities(self) -> Capabilities:
        """No logits processors, no schemas, no shared caches."""
        return Capabilities(
            logprobs=True,
            top_logprobs=20,
            full_vocabulary=True,
            scoring=True,
            prefix=True,
            seed=True,
            tools=True,
        )

    def count_tokens(self, prompt: Prompt) -> int:
        """Number of words of the prompt."""
        return len(_words(_prompt_text(prompt)))

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        if self._silent:
            raise BackendUnavailable("a sample was requested that the first run did not generate")
        requests = [OwnSampling().resolve(request, ModelProfile()) for request in requests]
        for request in requests:
            if request.sampling.logits_processors:
                raise CapabilityMissing("logits_processors", self.name)
            if request.sampling.json_schema is not None:
                raise CapabilityMissing("json_schema", self.name)
        results: list[list[Completion]] = []
        for position, request in enumerate(requests):
            results.append([])
            for index in request.indices:
                completion = self._sample(request, index)
                await self._hold(completion.usage.completion_tokens)
                self.written += completion.usage.completion_tokens
                results[-1].append(completion)
                if listener is not None:
                    listener(Chunk(request=position, sample_index=index, text=completion.text, completion=completion))
        return results

    def _sample(self, request: Request, index: int) -> Completion:
        sampling = request.sampling
        words = [*_words(_random(request, index).choice(self._texts)), ""]  # the last is the end of the text
        text, reason, stop = "", "length", None
        for count, word in enumerate(words[: sampling.max_tokens], start=1):
            text, stop = _until_stop(text + word, sampling.stop)
            if stop is not None or not word:
                reason, words = "stop", words[:count]
                break
        words = words[: sampling.max_tokens]
        top = sampling.top_logprobs
        is_first = index == request.indices[0]
        return Completion(
            text=text,
            token_ids=tuple(map(_id, words)),
            logprobs=tuple(map(_logprob, words)),
            top_logprobs=tuple(_top_logprobs(word, top) for word in words) if top else None,
            finish_reason=cast(FinishReason, reason),
            stop_reason=None if reason == "length" else stop or "",
            usage=Usage(
                prompt_tokens=self.count_tokens(request.prompt) if is_first else 0, completion_tokens=len(words)
            ),
            sample_index=index,
        )

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        if self._silent:
            raise BackendUnavailable("a score was requested that the first run did not compute")
        prompt_tokens = self.count_tokens(prompt)
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
                    usage=Usage(prompt_tokens=prompt_tokens + len(words)),
                )
            )
        return scored

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        """Distributions in which a yes and a no have almost all of the probability."""
        if self._silent:
            raise BackendUnavailable("a distribution was requested that the first run did not compute")
        distributions = []
        for prompt in prompts:
            await self._hold()
            self.measured += 1
            yes = 0.3 + 0.1 * (zlib.crc32(_prompt_text(prompt).encode()) % 5)
            chances = {"Yes": yes, "No": 0.95 - yes, "So": 0.05}
            ranked = sorted(chances.items(), key=lambda pair: -pair[1])[:top]
            distributions.append(
                NextTokenDistribution(
                    token_ids=tuple(_id(word) for word, _ in ranked),
                    tokens=tuple(word for word, _ in ranked),
                    logprobs=tuple(math.log(p) for _, p in ranked),
                    entropy=-sum(p * math.log(p) for p in chances.values()),
                    support="full",
                    usage=Usage(prompt_tokens=self.count_tokens(prompt)),
                )
            )
        return distributions

    async def aclose(self) -> None:
        """Nothing to release."""

    async def _hold(self, work: int = 1) -> None:
        """Block before the work that would pass the limit, after the event loop has had its turn."""
        await asyncio.sleep(0)
        if self._hold_after is not None and self.written + self.measured + work > self._hold_after:
            self.holding.set()
            await asyncio.Event().wait()


def _until_stop(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """The text before a stop string, and the string; the text itself and None without one."""
    stopped = None
    for stop in stops:
        if stop in text:
            text, stopped = text[: text.index(stop)], stop
    return text, stopped


def _random(request: Request, index: int) -> random.Random:
    sample = "" if request.sampling.temperature == 0 else f"{request.sampling.seed}/{index}"
    return random.Random(f"{_prompt_text(request.prompt)}/{sample}")  # noqa: S311 (no secret)


def _prompt_text(prompt: Prompt) -> str:
    messages = "\n".join(f"{m.role}: {m.content}" for m in prompt.messages)
    return f"{prompt.text or messages}\n{prompt.prefix}"


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)


def _id(word: str) -> int:
    return zlib.crc32(word.encode()) % 50_000


def _logprob(word: str) -> float:
    return -(1 + _id(word) % 10) / 10


def _top_logprobs(word: str, count: int) -> tuple[TopToken, ...]:
    return (TopToken(token_id=_id(word), token=word, logprob=_logprob(word)),)[:count]


TIMEOUT_S = 20.0
"""Timeout of a run, and of a cancelled one."""


@dataclass
class Trial:
    """The result of a run.

    Attributes:
        run: The run, with its ledger.
        solution: What the strategy returned; None if it raised.
        error: What it raised.
        events: Every event, in order.
        left: Names of tasks that were still running at its end.
        late: Whether it did not end within `TIMEOUT_S` seconds.
    """

    run: Run
    model: PlainModel
    solution: Solution | None = None
    error: BaseException | None = None
    events: list[Event] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    late: bool = False


class TrialRunner:
    """Runs a strategy several times, under different names in one store.

    Args:
        parameters: Parameters that differ from its defaults.
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
        resume: bool = False,
    ) -> Trial:
        """Run it once.

        Args:
            hold_after: The model blocks after this number of tokens and measurements, and the run is cancelled then.
            silent: The model refuses every request.
            resume: Whether to resume an earlier run of this name.
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
        run = Run(name, config, self._store, sinks=[events.append], has_started=resume)
        if not resume:
            await self._store.create_run(run.id, config.model_dump(mode="json"))
        trial = Trial(run, model, events=events)
        before = asyncio.all_tasks()
        models = Models({"main": MeteredModel(model, "main", run)})
        task = asyncio.create_task(self.kind(self._config).solve(self._question, models, run))
        if hold_after is not None:
            held = asyncio.create_task(model.holding.wait())
            await asyncio.wait({task, held}, timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            await cancel_and_wait(held)
            task.cancel()
        await asyncio.wait({task}, timeout=TIMEOUT_S)
        trial.late = not task.done()
        if task.done():
            trial.error = asyncio.CancelledError() if task.cancelled() else task.exception()
            trial.solution = None if trial.error is not None else task.result()
        await run.writer.flush()  # a write in flight is a task of the run, not of the strategy
        trial.left = sorted(_name(t) for t in asyncio.all_tasks() - before - {task})
        for left in asyncio.all_tasks() - before:
            left.cancel()
            await asyncio.wait({left}, timeout=1.0)
        return trial


def _name(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", repr(task))


QUESTION = Question(text="What is 2 + 3?")
ROLES = frozenset({"main", "small", "judge", "jury", "reward", "embedding", "knowledge"})


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
        check: The requirement, as a short phrase.
        error: What is wrong; empty if the requirement is met.
    """

    check: str
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the requirement is met."""
        return not self.error


class ConformanceError(AssertionError):
    """A strategy does not conform; the message lists the failed checks."""


async def assert_conforms(
    kind: type[Strategy], parameters: Mapping[str, JsonValue] | None = None, *, question: Question = QUESTION
) -> None:
    """Assert that a strategy conforms.

    Args:
        parameters: Parameters that differ from its defaults.

    Raises:
        ConformanceError: A check failed; lists all failed checks.
        UserError: The parameters are invalid.
    """
    failed = [r for r in await check_strategy(kind, parameters, question=question) if not r.ok]
    if failed:
        raise ConformanceError(f"{kind.name}: " + "; ".join(f"{r.check}: {r.error}" for r in failed))


async def check_strategy(
    kind: type[Strategy], parameters: Mapping[str, JsonValue] | None = None, *, question: Question = QUESTION
) -> list[CheckResult]:
    """Check a strategy on `PlainModel`.

    It must work with a single language model without logits processors, schemas, thoughts and a shared cache; other
    requirements need tests of their own. Nothing is downloaded, and the temporary store is
    removed at the end.

    Args:
        parameters: Parameters that differ from its defaults.

    Returns:
        A result for every check, in order.

    Raises:
        UserError: The parameters are invalid.
    """
    results = [CheckResult("declaration", _declared(kind))]
    missing = (
        kind.requires - {f for f in get_args(Feature) if PlainModel().capabilities.has(f)} if results[0].ok else ()
    )
    if missing:
        results.append(CheckResult("features", f"the plain model has no {', '.join(sorted(missing))}"))
    if not all(r.ok for r in results):
        return results
    async with _store() as store:
        runner = TrialRunner(kind, parameters or {}, question, store)
        complete = await runner.run("complete")
        results.append(CheckResult("solution", _answered(complete)))
        if not results[-1].ok:
            return results
        results.append(CheckResult("token accounting", _paid(complete)))
        results.append(CheckResult("determinism", _same(complete, await runner.run("twin"))))
        replayed = await runner.run("complete", silent=True, resume=True)
        results.append(CheckResult("replay", _same(complete, replayed)))
        results.append(CheckResult("budgets", await _keeps_to_budgets(runner, complete)))
        stopped = [await runner.run(f"held-{n}", hold_after=n) for n in _interruption_points(complete)]
        results.append(CheckResult("cancellation", _first_error(_ended(t) for t in stopped)))
        resumed = [await runner.run(t.run.id, resume=True) for t in stopped]
        results.append(CheckResult("resumption", _first_error(_same(complete, t) for t in resumed)))
        results.append(CheckResult("event pairs", _first_error(map(_balanced, [complete, *stopped]))))
    return results


def _first_error(errors: Iterable[str]) -> str:
    return next((error for error in errors if error), "")


@asynccontextmanager
async def _store() -> AsyncIterator[SqliteStore]:
    with tempfile.TemporaryDirectory(prefix="reason-conformance-") as directory:
        store = await SqliteStore.open(Path(directory) / "runs.sqlite3")
        try:
            yield store
        finally:
            await store.aclose()


def _declared(kind: type[Strategy]) -> str:
    declared = ("name", "summary", "paper", "confidence", "stability", "requires", "roles")
    missing = [a for a in declared if not hasattr(kind, a)]
    if missing:
        return f"it has no {', '.join(missing)}"
    if not kind.name or not kind.summary or "\n" in kind.summary:
        return "name and summary are one line each"
    if not kind.confidence.strip() or "\n" in kind.confidence:
        return "confidence is one sentence: what its confidence means, or that it has none"
    if kind.stability not in get_args(Stability):
        return f"its stability is none of {', '.join(get_args(Stability))}"
    if unknown := kind.requires - set(get_args(Feature)):
        return f"it requires unknown features: {', '.join(sorted(unknown))}"
    if strange := set(kind.roles) - ROLES:
        return f"it has unknown roles: {', '.join(sorted(strange))}"
    if thinking_of(kind) not in get_args(Thinking):
        return f"its thinking is none of {', '.join(get_args(Thinking))}"
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
        return "its solution changes in a JSON round trip"
    if trial.left:
        return f"its tasks were still running after it had answered: {', '.join(trial.left)}"
    return ""


def _paid(trial: Trial) -> str:
    usage = trial.run.ledger.usage()
    charged = usage.completion_tokens - usage.replayed_tokens  # a sample that is requested again is not generated again
    if charged != trial.model.written:
        return f"the model wrote {trial.model.written} tokens, and the run was charged {charged}"
    return ""


def _same(first: Trial, second: Trial) -> str:
    if error := _answered(second):
        return error
    assert first.solution is not None
    assert second.solution is not None
    one, other = first.solution.model_dump(mode="json"), second.solution.model_dump(mode="json")
    if differing := [name for name in one if one[name] != other[name]]:
        return f"{', '.join(differing)} of the solution differ"
    return ""


async def _keeps_to_budgets(runner: TrialRunner, complete: Trial) -> str:
    used = int(complete.run.ledger.used("tokens"))
    calls = int(complete.run.ledger.used("calls"))
    budgets = [Budget(tokens=n) for n in sorted({1, max(1, used // 2), max(1, used - 1)})]
    budgets += [Budget(calls=n) for n in sorted({1, max(1, calls - 1)})]
    for number, budget in enumerate(budgets):
        trial = await runner.run(f"budget-{number}", budget=budget)
        limit = f"{budget.tokens} tokens" if budget.tokens is not None else f"{budget.calls} calls"
        if trial.late:
            return f"with {limit} it did not end"
        if trial.error is not None:
            return f"with {limit} it raised {type(trial.error).__name__}: a spent budget is no error"
        if budget.tokens is not None and trial.model.written > budget.tokens:
            return f"with {limit} the model wrote {trial.model.written} tokens"
        if trial.run.ledger.exhausted is not None and trial.solution and trial.solution.stopped != "budget":
            return f'with {limit} the budget stopped it, but its solution has stopped="{trial.solution.stopped}"'
    return ""


def _interruption_points(complete: Trial) -> list[int]:
    """Progress of the model at which a run is cancelled: at its beginning, in its middle, near its end."""
    worked = complete.model.written + complete.model.measured
    return sorted({0, worked // 2, max(0, worked - 1)})


def _ended(trial: Trial) -> str:
    if trial.late:
        return "it did not end"
    if trial.error is None:
        return "it suppressed the cancellation and returned"
    if not isinstance(trial.error, asyncio.CancelledError):
        return f"it raised {type(trial.error).__name__} in its place"
    if trial.left:
        return f"its tasks kept running: {', '.join(trial.left)}"
    return ""


def _balanced(trial: Trial) -> str:
    seen: set[int] = set()
    calls: set[int] = set()
    stages: list[str] = []
    searches: dict[str, bool] = {}
    for event in trial.events:
        if event.parent is not None and event.parent not in seen:
            return f"{getattr(event, 'type', 'an event')} has a parent that was not emitted before it"
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
                    return f"stage {event.stage} was finished but not started"
            case NodesSearched():
                if searches.setdefault(event.search, True) is False:
                    return f"search {event.search} continued after its end"
            case SearchEnded():
                if searches.get(event.search) is False:
                    return f"search {event.search} ended twice"
                searches[event.search] = False
            case _:
                pass
    if calls:
        return f"{len(calls)} calls were started and not finished"
    if trial.error is None and stages:
        return f"stage {stages[-1]} was started and not finished"
    open_ones = [name for name, still in searches.items() if still]
    if trial.error is None and open_ones:
        return f"search {open_ones[0]} has no end"
    return ""
