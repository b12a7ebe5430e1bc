"""Sampling chains of thought: as few as a stopping rule allows, in rounds or in a race.

Every sampling strategy samples here, so that budgets, failures, cancelled samples and stopping mean the same in all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Final

from pydantic import Field, JsonValue

from ..core.budget import LimitKind
from ..core.concurrency import gather, paced
from ..core.errors import BudgetExceeded, InvalidResponse
from ..core.events import CandidateAdded, StrategyNote
from ..core.messages import Chunk, Completion, Prompt, Request, SamplingParams
from ..core.run import Run
from ..core.types import Candidate, Question, Solution, Stopped
from ..serving.metered.model import MeteredModel, load_decision, sampled_json, save_decision
from .answers.equivalence import AnswerLabels, Equivalence
from .answers.extraction import read_candidate
from .conclude import as_cut_by_budget, conclude, narrowed_to_budget
from .prompts import question_prompt, step_by_step_instruction
from .stopping import NoStop, SamplingMode, Stopping, StoppingRule, Tally
from .strategy import MAX_CHAINS, MAX_TOKENS, Models, Parameters

RACE_WIDTH: Final = 4
"""Concurrent chains of a race; a wider one takes less time and more tokens, and gives the same answer."""

Sample = tuple[Completion, Candidate]
"""A finished sample and the candidate parsed from it."""


@dataclass
class SampleSet:
    """The samples of one prompt.

    Attributes:
        candidates: The complete samples, in order of sample index.
        completions: The completions of the candidates.
        failures: Samples that failed individually.
        cancelled: Samples that the rule had not counted when there were enough: cancelled, or finished before one that
            was started earlier. They do not vote; their tokens are charged.
        stopped_early: Whether the rule stopped before all samples were taken.
        weights: Weight of each candidate's vote, by the rule.
    """

    candidates: list[Candidate] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    failures: list[Completion] = field(default_factory=list)
    cancelled: list[Completion] = field(default_factory=list)
    num_requested: int = 0
    stopped: Stopped = "done"
    mode: str = "rounds"
    stopped_early: bool = False
    weights: list[float] = field(default_factory=list)

    def notes(self, rule: StoppingRule) -> dict[str, JsonValue]:
        """The counts, for the solution's notes."""
        return {
            "rule": rule.model_dump(mode="json"),
            "mode": self.mode,
            "requested": self.num_requested,
            "finished": len(self.candidates),
            "cancelled": len(self.cancelled),
            "stopped_early": self.stopped_early,
        }


class SamplingConfig(Parameters):
    """Parameters of every strategy that samples chains. With equal values, all of them take the same samples."""

    n: Annotated[int, Field(ge=1, le=MAX_CHAINS, description="maximum number of chains")] = 8
    temperature: Annotated[
        float | None,
        Field(ge=0, le=100, description="sampling temperature; by default 0.7 where the model takes one"),
    ] = None
    top_p: Annotated[float | None, Field(gt=0, le=1, description="nucleus mass; by default the model's own")] = None
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKENS, description="most likely tokens kept; 0 keeps all")] = 0
    max_tokens: Annotated[
        int, Field(ge=1, le=MAX_TOKENS, description="maximum tokens of a chain, its thought apart")
    ] = 512
    instruction: Annotated[
        str | None, Field(description="text after the question; by default the chain-of-thought trigger")
    ] = None
    system: Annotated[str, Field(description="system message; empty leaves it to the model")] = ""
    stopping: Annotated[Stopping, Field(description="stopping rule: a name, or an object with its parameters")] = (
        NoStop()
    )
    mode: Annotated[
        SamplingMode, Field(description="how chains are sampled under a stopping rule: rounds, race, auto")
    ] = "auto"

    @classmethod
    def sample_factors(cls, values: Mapping[str, Any]) -> dict[str, int]:
        return {"n": values["n"]}

    @property
    def default_temperature(self) -> float:
        """The temperature if the parameters name none and the model takes one."""
        return 0.7

    def prompt(self, question: Question) -> Prompt:
        """The prompt of every chain."""
        instruction = step_by_step_instruction(question) if self.instruction is None else self.instruction
        return question_prompt(question, instruction, system=self.system)

    async def sample(
        self, question: Question, models: Models, run: Run, *, logprobs: bool = False, top_logprobs: int = 0
    ) -> SampleSet:
        """Sample chains of the main model; the leading answer so far is the run's best while they are sampled.

        Args:
            logprobs: Whether the strategy reads log-probabilities; a model without them returns none.
            top_logprobs: Alternatives that it reads at each position, at most those that the model returns.

        Raises:
            InvalidResponse: Every sample failed.
            UserError: The model takes no temperature or `top_p`, and the parameters name one.
        """
        model = models.main
        sampling = SamplingParams(
            temperature=self.temperature,
            default_temperature=self.default_temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_tokens=self.max_tokens,
            n=self.n,
            logprobs=logprobs and model.capabilities.logprobs,
            top_logprobs=min(top_logprobs, model.capabilities.top_logprobs),
        )
        samples = await sample_chains(
            model,
            self.prompt(question),
            sampling,
            question,
            run,
            rule=self.stopping,
            mode=self.mode,
            width=None if self.stopping.counts_by_completion else RACE_WIDTH,
            on_candidate=lambda candidates: run.set_best(lambda: leading_solution(candidates)),
        )
        if samples.candidates:
            run.set_best(leading_solution(samples.candidates))
        return samples


async def sample_chains(
    model: MeteredModel,
    prompt: Prompt,
    sampling: SamplingParams,
    question: Question,
    run: Run,
    *,
    rule: StoppingRule | None = None,
    mode: SamplingMode = "auto",
    width: int | None = None,
    on_candidate: Callable[[list[Candidate]], None] | None = None,
) -> SampleSet:
    """Take up to `sampling.n` samples of a prompt.

    A budget that does not cover all of them narrows each to an equal share, down to a minimum, below which fewer are
    taken at a time (`MeteredModel.narrowed`).

    The answers of samples that were cut while the model thought are requested after their thoughts (`conclude`).

    Args:
        rule: Stopping rule; None takes all samples.
        width: Concurrent samples of a race: as one finishes the next starts, each as a call of its own. None starts
            all at once as one call: fastest, but most of what is cancelled has been paid for by then. Samples count in
            the order in which they were started, so the answer does not depend on it (except under a rule that
            `counts_by_completion`).
        on_candidate: Called with the candidates so far, in order of completion, whenever one is added.

    Raises:
        InvalidResponse: Every sample failed.
    """
    rule = rule or NoStop()
    can_stop = not isinstance(rule, NoStop)
    samples = SampleSet(mode=_resolve_mode(mode, model))
    async with Equivalence.for_run(run) as equivalence:
        counter = _TallyCounter(question, equivalence)
        while samples.num_requested < sampling.n and samples.stopped == "done" and not samples.stopped_early:
            remaining = sampling.n - samples.num_requested
            size = remaining if samples.mode == "race" else rule.round_size(counter.tally, remaining)
            size = model.max_samples_of(prompt, size)
            indices = tuple(range(samples.num_requested, samples.num_requested + size))
            request = Request(prompt=prompt, sampling=sampling, sample_indices=indices)
            try:
                request, limit = narrowed_to_budget(model, request, remaining, run)
                batch = _Batch(request, question, run, samples, on_candidate, limit)
                if can_stop and samples.mode == "race":
                    samples.stopped_early = await _race(model, batch, counter, rule, width)
                else:
                    await batch.generate(model)
            except BudgetExceeded as e:
                run.record_limit(e)
                samples.stopped = "budget"
                break
            if limit is not None and batch.was_cut and samples.stopped == "done":
                run.record_limit(run.ledger.exceeded(limit))
                samples.stopped = "budget"
            if can_stop:
                await counter.add(batch.take_uncounted(rule))
                samples.stopped_early = samples.stopped_early or (
                    counter.tally.num_finished > 0 and rule.should_stop(counter.tally)
                )
    samples.weights = list(rule.vote_weights(_tally_of([None] * len(samples.completions), samples.completions)))
    if not samples.candidates and samples.failures and (failure := samples.failures[0].failure) is not None:
        raise InvalidResponse(f"every sample failed: {failure.message}")
    if samples.failures:
        run.degrade(f"{len(samples.failures)} of {samples.num_requested} samples failed and did not vote")
    if can_stop:
        data = samples.notes(rule)
        run.emit(StrategyNote(strategy=run.config.strategy, name="sampling.stopped", data=data))
    return samples


async def _race(
    model: MeteredModel,
    batch: _Batch,
    counter: _TallyCounter,
    rule: StoppingRule,
    width: int | None,
) -> bool:
    """Run a batch and check the rule after each sample that counts; once it stops, cancel the rest.

    Samples count in the order in which they were started: one that finishes early waits for those before it. Only under
    a rule that `counts_by_completion` does the outcome depend on the machine, but which samples were started and how
    far they got does always, so the outcome of a race is recorded, and a replay follows the record.

    Returns:
        Whether the rule stopped the race.
    """
    key: dict[str, JsonValue] = {"race": batch.identity, "rule": rule.model_dump(mode="json"), "width": width}
    recorded = await load_decision(batch.run, model, key)
    if recorded is not None:
        return await batch.replay(model, recorded)
    enough = asyncio.Event()
    is_complete = False

    async def watch() -> bool:
        while True:
            await batch.sample_finished.wait()
            batch.sample_finished.clear()
            with model.held([batch.request]):
                async for sample in paced(iter(partial(batch.next_uncounted, rule), None)):
                    await counter.add([sample])
                    if rule.should_stop(counter.tally):
                        return True
            if is_complete:
                return False

    watcher = asyncio.ensure_future(watch())
    watcher.add_done_callback(lambda _: enough.set())  # also a watcher that failed must not leave the race running
    try:
        await (batch.generate(model, enough) if width is None else batch.generate_in_lanes(model, enough, width))
        is_complete = True
        batch.sample_finished.set()
        stopped_early = await watcher
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
    if stopped_early:
        batch.keep_counted()
    await save_decision(batch.run, model, key, {**batch.outcome(), "stopped_early": stopped_early})
    return stopped_early


class _Batch:
    """Samples that are requested together, on their way into the sample set."""

    def __init__(
        self,
        request: Request,
        question: Question,
        run: Run,
        samples: SampleSet,
        on_candidate: Callable[[list[Candidate]], None] | None,
        limit: LimitKind | None,
    ) -> None:
        self.run = run
        self._limit = limit
        """The limit of the budget that narrows the samples; None if none does."""
        self.sample_finished = asyncio.Event()
        self._finished: dict[int, Sample] = {}
        """Finished samples that are not in the tally yet, by index, in order of completion."""
        self._counted: list[int] = []
        """Indices of those that are, in the order in which they were counted."""
        self._failed: set[int] = set()
        self.request = request
        self._question = question
        self._samples = samples
        self._on_candidate = on_candidate
        self._candidates: dict[int, Candidate] = {}
        self._started: list[int] = []
        self.was_cut = False
        """Whether a sample was cut while the model thought."""

    @property
    def identity(self) -> JsonValue:
        """The batch's part of a decision's key."""
        return {"request": sampled_json(self.request), "samples": list(self.request.indices)}

    def outcome(self) -> dict[str, JsonValue]:
        """What a replay needs: the started samples, those that finished, those that count, and why it ended."""
        return {
            "started": list(self._started),
            "finished": list(self._candidates),
            "counted": list(self._counted),
            "stopped": self._samples.stopped,
        }

    def next_uncounted(self, rule: StoppingRule) -> Sample | None:
        """The next finished sample that the rule counts; None while one that was started earlier is running."""
        if rule.counts_by_completion:
            index = next(iter(self._finished), None)
        else:
            counted = set(self._counted) | self._failed
            index = next((i for i in self.request.indices if i not in counted), None)
        if index is None or index not in self._finished:
            return None
        self._counted.append(index)
        return self._finished.pop(index)

    def take_uncounted(self, rule: StoppingRule) -> list[Sample]:
        """All finished samples that are not counted yet, in the rule's order, once no other is running."""
        indices = list(self._finished) if rule.counts_by_completion else sorted(self._finished)
        self._counted += indices
        return [self._finished.pop(index) for index in indices]

    def keep_counted(self) -> None:
        """Let only the counted samples vote: the rule stopped before it came to the others."""
        samples, dropped = self._samples, set(self._finished)
        self._finished.clear()
        kept = [
            pair
            for pair in zip(samples.completions, samples.candidates, strict=True)
            if pair[0].sample_index not in dropped
        ]
        unused = [completion for completion in samples.completions if completion.sample_index in dropped]
        samples.completions[:] = [completion for completion, _ in kept]
        samples.candidates[:] = [candidate for _, candidate in kept]
        samples.cancelled[:] = sorted([*samples.cancelled, *unused], key=lambda completion: completion.sample_index)

    async def generate(
        self,
        model: MeteredModel,
        enough: asyncio.Event | None = None,
        *,
        finished: Sequence[JsonValue] | None = None,
    ) -> None:
        """Take all samples in one call.

        Args:
            finished: In a replay, indices of the samples that finished in time.
        """
        earlier = list(self._samples.candidates)
        (completions,) = await model.generate([self.request], self._on_chunk, enough=enough)
        await self._add(await self._concluded(model, completions, enough, finished), earlier)

    async def generate_in_lanes(self, model: MeteredModel, enough: asyncio.Event, width: int) -> None:
        """Take `width` samples at a time, each in a call of its own; none is started once there is enough."""
        indices, earlier = iter(self.request.indices), list(self._samples.candidates)
        completions: dict[int, Completion] = {}
        errors: list[BudgetExceeded] = []

        async def lane() -> None:
            while not enough.is_set() and not errors and (index := next(indices, None)) is not None:
                request = self.request.model_copy(update={"sample_indices": (index,)})
                try:
                    (sampled,) = await model.generate([request], self._on_chunk, enough=enough)
                    completions[index] = sampled[0]
                    (completions[index],) = await self._concluded(model, sampled, enough)
                    if not completions[index].ok:
                        self._fail(index)
                except BudgetExceeded as e:
                    errors.append(e)
                await asyncio.sleep(0)  # the rule sees what has finished before the next sample starts

        await gather([lane() for _ in range(min(width, len(self.request.indices)))])
        if errors and not completions:
            raise errors[0]
        if errors:
            self.run.record_limit(errors[0])
            self._samples.stopped = "budget"
        await self._add([completions[index] for index in sorted(completions)], earlier)

    async def replay(self, model: MeteredModel, outcome: dict[str, JsonValue]) -> bool:
        """Take the samples of a recorded race from the run store; returns whether the rule had stopped it."""
        started, finished, counted = outcome["started"], outcome["finished"], outcome["counted"]
        assert isinstance(started, list)
        assert isinstance(finished, list)
        assert isinstance(counted, list)
        self.request = self.request.model_copy(update={"sample_indices": tuple(started)})
        await self.generate(model, finished=finished)
        self._finished = {index: self._finished[index] for index in finished if isinstance(index, int)} | self._finished
        if outcome["stopped"] == "budget":
            self._samples.stopped = "budget"
        if outcome["stopped_early"] is not True:
            return False
        for index in counted:
            assert isinstance(index, int)
            self._counted.append(index)
            del self._finished[index]
        self.keep_counted()
        return True

    async def _concluded(
        self,
        model: MeteredModel,
        completions: Sequence[Completion],
        enough: asyncio.Event | None,
        finished: Sequence[JsonValue] | None = None,
    ) -> list[Completion]:
        """The samples, those that were cut while the model thought with the answers that are requested after them.

        Once there is enough they are not requested.
        """
        cut = [c for c in completions if c.finish_reason == "thinking"]
        self.was_cut = self.was_cut or bool(cut)
        if finished is not None:
            cut = [c for c in cut if c.sample_index in finished]
        if not cut or (enough is not None and enough.is_set()):
            return list(completions)
        indices = [c.sample_index for c in cut]
        samples = [c for c in completions if c.finish_reason != "thinking" or c.sample_index in indices]
        pairs = [(self.request.prompt, c) for c in samples]
        by_index = {c.sample_index: c for c in await conclude(model, pairs, self._question, self.run)}
        for index in indices:
            self._take(by_index[index])
        return [by_index.get(c.sample_index, c) for c in completions]

    async def _add(self, completions: Sequence[Completion], earlier: list[Candidate]) -> None:
        samples = self._samples
        if (limit := self._limit) is not None:
            completions = [as_cut_by_budget(one, self.request.prompt, self.run, limit) for one in completions]
        self._started = [completion.sample_index for completion in completions]
        samples.num_requested += len(completions)
        # by sample index, not in order of completion, so that the same seed gives the same list
        samples.candidates[:] = earlier
        async for completion in paced(completions):
            if not completion.ok:
                samples.failures.append(completion)
            elif completion.finish_reason == "cancelled":
                samples.cancelled.append(completion)
            elif completion.finish_reason == "thinking" and completion.sample_index not in self._candidates:
                samples.cancelled.append(completion)  # there was enough before its answer was requested
            else:
                samples.completions.append(completion)
                candidate = self._candidates.get(completion.sample_index) or read_candidate(completion, self._question)
                if self._limit is not None:
                    # while it was generated it was not known whether the budget had set its limit
                    candidate = candidate.model_copy(update={"finish_reason": completion.finish_reason})
                samples.candidates.append(candidate)
        if any(completion.finish_reason == "budget" for completion in completions):
            samples.stopped = "budget"

    def _on_chunk(self, chunk: Chunk) -> None:
        completion = chunk.completion
        if completion is None or completion.finish_reason == "cancelled":
            return
        if not completion.ok:
            self._fail(completion.sample_index)
            return
        if completion.finish_reason != "thinking":  # others are concluded first
            self._take(completion)

    def _take(self, completion: Completion) -> None:
        """Add a finished sample to the candidates so far."""
        candidate = self._candidates[completion.sample_index] = read_candidate(completion, self._question)
        self._finished[completion.sample_index] = (completion, candidate)
        self.sample_finished.set()
        self._samples.candidates.append(candidate)
        self.run.emit(CandidateAdded(index=completion.sample_index, answer=candidate.answer))
        if self._on_candidate is not None:
            self._on_candidate(self._samples.candidates)

    def _fail(self, index: int) -> None:
        """Do not wait for a sample that failed."""
        self._failed.add(index)
        self.sample_finished.set()


class _TallyCounter:
    """Adds finished samples to a tally, equal answers under one label."""

    def __init__(self, question: Question, equivalence: Equivalence) -> None:
        self.tally = Tally()
        self._labels = AnswerLabels(question)
        self._equivalence = equivalence

    async def add(self, samples: Sequence[Sample]) -> None:
        """Add samples in the order in which the rule counts them."""
        labels = [await self._labels.label(candidate.answer, self._equivalence) for _, candidate in samples]
        added = _tally_of(labels, [completion for completion, _ in samples])
        self.tally = Tally(self.tally.labels + added.labels, self.tally.num_tokens + added.num_tokens)


def _tally_of(labels: Sequence[int | None], completions: Sequence[Completion]) -> Tally:
    return Tally(tuple(labels), tuple(completion.usage.completion_tokens for completion in completions))


def leading_solution(candidates: Sequence[Candidate]) -> Solution:
    """The leading answer while samples are still being generated, by equal texts: no comparison has to be awaited."""
    votes: dict[str, int] = {}
    for candidate in candidates:
        if candidate.answer is not None:
            votes[candidate.answer] = votes.get(candidate.answer, 0) + 1
    if not votes:
        return Solution(chosen=0 if candidates else None, candidates=tuple(candidates), confidence=0.0)
    answer = max(votes, key=lambda a: votes[a])
    chosen = next(i for i, c in enumerate(candidates) if c.answer == answer)
    return Solution(chosen=chosen, candidates=tuple(candidates), confidence=votes[answer] / len(candidates))


def _resolve_mode(mode: SamplingMode, model: MeteredModel) -> str:
    if mode != "auto":
        return mode
    capabilities = model.capabilities
    is_free = capabilities.usd_per_completion_token == 0 and not capabilities.prompt_per_sample
    return "race" if is_free else "rounds"
