"""`draw`: samples of one prompt, as few as a stopping rule allows, in rounds or in a race.

Every sampling strategy draws here, so that budgets, failures, cancelled samples and stopping mean the same in all.

`SampledChains`: the parameters of every strategy that samples chains of thought, and how they are drawn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field, JsonValue

from ..core.answer import Candidate, Solution, Stopped
from ..core.errors import BadReply, CapabilityMissing, LimitExceeded
from ..core.events import CandidateFound, StrategyNote
from ..core.messages import Chunk, Completion, Prompt, Request, SamplingParams
from ..core.question import Question
from ..core.run import Run
from ..core.together import together
from ..serving.decisions import keep, recall
from ..serving.meter import sampled_json
from ..serving.metered import MeteredModel
from .answers.equivalence import Equivalence
from .candidates import read_candidate
from .prompts import ask, step_by_step
from .self_evaluation import SelfEvaluator
from .stopping import HOOK, Mode, NoStop, Stopping, StoppingRule, Tally
from .strategy import Models, Parameters
from .voting.answer_classes import AnswerLabels

Sample = tuple[Completion, Candidate]
"""A finished sample, and what was read in it."""

Judge = Callable[[Sequence[Candidate]], Awaitable[Sequence[float | None]]]
"""Gives each candidate the chance that it is as good as another attempt; None where there is no signal."""


@dataclass
class Drawn:
    """What was drawn.

    Attributes:
        candidates: The samples that are whole, in order of asking.
        chains: The same as the model gave them.
        failures: Samples that failed alone.
        cancelled: Samples that were cut when there was enough; their tokens are charged.
        given_up: Samples that a rule's hook ended; they have no vote.
        asked: Samples asked for.
        calls: Model calls.
        stopped: "done", or "budget".
        mode: "rounds" or "race".
        early: Whether the rule stopped before all samples were drawn.
    """

    candidates: list[Candidate] = field(default_factory=list)
    chains: list[Completion] = field(default_factory=list)
    failures: list[Completion] = field(default_factory=list)
    cancelled: list[Completion] = field(default_factory=list)
    given_up: list[Completion] = field(default_factory=list)
    asked: int = 0
    calls: int = 0
    stopped: Stopped = "done"
    mode: str = "rounds"
    early: bool = False

    @property
    def weights(self) -> list[float]:
        """Weight of each candidate's vote: its lowest group confidence where the rule measured it, else 1."""
        lowest = [_lowest(chain) for chain in self.chains]
        return [1.0 if value is None else value for value in lowest]

    def notes(self, rule: StoppingRule) -> dict[str, JsonValue]:
        """What became of the samples, for the solution's notes."""
        return {
            "rule": rule.model_dump(mode="json"),
            "mode": self.mode,
            "asked": self.asked,
            "finished": len(self.candidates),
            "cancelled": len(self.cancelled),
            "given_up": len(self.given_up),
            "early": self.early,
        }


async def draw(
    model: MeteredModel,
    prompt: Prompt,
    sampling: SamplingParams,
    question: Question,
    run: Run,
    *,
    rule: StoppingRule | None = None,
    mode: Mode = "auto",
    width: int | None = None,
    judge: Judge | None = None,
    on_candidate: Callable[[list[Candidate]], None] | None = None,
) -> Drawn:
    """Draw up to `sampling.n` samples.

    A token budget that does not cover all of them is spent on as many as it covers at a time: samples are mostly
    shorter than their limit, so later calls spend what earlier ones left.

    Args:
        model: The model.
        prompt: What is sampled.
        sampling: How; `n` is the most samples.
        question: What they answer.
        run: The run that pays.
        rule: When there is enough; None draws all.
        mode: In rounds or in a race.
        width: Samples under way at once in a race: as one finishes the next begins, each as a call of its own. None is
            all at once, as one call: soonest done, but most of what is cancelled has been paid by then.
        judge: Judges finished samples, for a rule that wants it.
        on_candidate: Told the candidates so far whenever one is added, in order of finishing.

    Raises:
        BadReply: No sample could be had at all.
        CapabilityMissing: The rule needs what the model cannot do.
    """
    rule = rule or NoStop()
    stops = not isinstance(rule, NoStop)
    for feature in sorted(rule.needs):
        if not model.capabilities.has(feature):
            raise CapabilityMissing(feature, model.name)
    drawn = Drawn(mode=_mode(mode, model))
    async with Equivalence() as equivalence:
        counting = _Counting(question, equivalence, judge if rule.judges else None, sampling.n)
        while drawn.asked < sampling.n and drawn.stopped == "done" and not drawn.early:
            tally = counting.tally
            left = sampling.n - drawn.asked
            wave = rule.race(tally, left) if drawn.mode == "race" else rule.round(tally, left)
            wave = run.ledger.affordable_samples(wave, sampling.max_tokens)
            hooked = sampling.model_copy(update={"hooks": (*sampling.hooks, *rule.hooks(tally))})
            request = Request(prompt=prompt, sampling=hooked, samples=tuple(range(drawn.asked, drawn.asked + wave)))
            wave_of = _Wave(request, question, run, drawn, on_candidate)
            try:
                if stops and drawn.mode == "race":
                    drawn.early = await _race(model, wave_of, counting, rule, width)
                else:
                    await wave_of.generate(model)
            except LimitExceeded as e:
                run.note_limit(e)
                drawn.stopped = "budget"
                break
            if stops:
                await counting.count(wave_of.finished)
                drawn.early = drawn.early or (counting.tally.finished > 0 and rule.enough(counting.tally))
    if not drawn.candidates and drawn.failures and (failure := drawn.failures[0].failure) is not None:
        raise BadReply(f"no sample could be had: {failure.message}")
    if drawn.failures:
        run.degrade(f"{len(drawn.failures)} of {drawn.asked} samples failed and did not vote")
    if stops:
        data = drawn.notes(rule)
        run.emit(StrategyNote(strategy=run.config.strategy, name="sampling.stopped", data=data))
    return drawn


async def _race(model: MeteredModel, wave: _Wave, counting: _Counting, rule: StoppingRule, width: int | None) -> bool:
    """Draw a wave and ask the rule at each sample that finishes; once there is enough, the rest are cancelled.

    Which samples finish first depends on the machine. So a finished race is noted, and a replay goes by the note.

    Returns:
        Whether there was enough.
    """
    what: dict[str, JsonValue] = {"race": wave.asked, "rule": rule.model_dump(mode="json"), "width": width}
    decided = await recall(wave.run, model, what)
    if decided is not None:
        return await wave.again(model, decided)
    enough = asyncio.Event()

    async def watch() -> bool:
        while True:
            await wave.news.wait()
            wave.news.clear()
            while wave.finished:
                await counting.count([wave.finished.pop(0)])
                if rule.enough(counting.tally):
                    return True

    watching = asyncio.ensure_future(watch())
    watching.add_done_callback(lambda _: enough.set())  # also a watcher that failed must not leave the race running
    try:
        await (wave.generate(model, enough) if width is None else wave.in_lanes(model, enough, width))
        early = watching.result() if watching.done() else False
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    await keep(wave.run, model, what, {**wave.outcome(), "early": early})
    return early


class _Wave:
    """Samples asked for at once, on their way into what is drawn."""

    def __init__(
        self,
        request: Request,
        question: Question,
        run: Run,
        drawn: Drawn,
        on_candidate: Callable[[list[Candidate]], None] | None,
    ) -> None:
        self.run = run
        self.news = asyncio.Event()
        self.finished: list[Sample] = []
        """Those that nobody has counted yet, in order of finishing."""
        self._request = request
        self._question = question
        self._drawn = drawn
        self._on_candidate = on_candidate
        self._read: dict[int, Candidate] = {}
        self._made: list[int] = []

    @property
    def asked(self) -> JsonValue:
        """What names the wave."""
        return {"request": sampled_json(self._request), "samples": list(self._request.indices)}

    def outcome(self) -> dict[str, JsonValue]:
        """What a replay needs: the samples that were begun, those that finished in their order, and why it ended."""
        return {"begun": list(self._made), "finished": list(self._read), "stopped": self._drawn.stopped}

    async def generate(self, model: MeteredModel, enough: asyncio.Event | None = None) -> None:
        """Draw all in one call."""
        so_far = list(self._drawn.candidates)
        (chains,) = await model.generate([self._request], self._hear, enough=enough)
        self._drawn.calls += 1
        self._take(chains, so_far)

    async def in_lanes(self, model: MeteredModel, enough: asyncio.Event, width: int) -> None:
        """Draw `width` at a time, each in a call of its own; none is begun once there is enough.

        Raises:
            LimitExceeded: The budget covers none of them.
        """
        indices, so_far = iter(self._request.indices), list(self._drawn.candidates)
        made: dict[int, Completion] = {}
        spent: list[LimitExceeded] = []

        async def lane() -> None:
            while not enough.is_set() and not spent and (index := next(indices, None)) is not None:
                one = self._request.model_copy(update={"samples": (index,)})
                try:
                    ((made[index],),) = await model.generate([one], self._hear, enough=enough)
                except LimitExceeded as e:
                    spent.append(e)
                self._drawn.calls += 1
                await asyncio.sleep(0)  # the rule looks at what has finished before the next one begins

        await together([lane() for _ in range(min(width, len(self._request.indices)))])
        if spent and not made:
            raise spent[0]
        if spent:
            self.run.note_limit(spent[0])
            self._drawn.stopped = "budget"
        self._take([made[index] for index in sorted(made)], so_far)

    async def again(self, model: MeteredModel, outcome: dict[str, JsonValue]) -> bool:
        """Draw what was drawn before: all of it is in the run store. Returns whether there was enough."""
        begun, finished = outcome["begun"], outcome["finished"]
        assert isinstance(begun, list)
        assert isinstance(finished, list)
        self._request = self._request.model_copy(update={"samples": tuple(begun)})
        await self.generate(model)
        heard = {chain.sample_index: (chain, candidate) for chain, candidate in self.finished}
        self.finished = [heard[index] for index in finished if isinstance(index, int)]
        if outcome["stopped"] == "budget":
            self._drawn.stopped = "budget"
        return outcome["early"] is True

    def _take(self, chains: Sequence[Completion], so_far: list[Candidate]) -> None:
        """Sort what came back."""
        drawn = self._drawn
        self._made = [chain.sample_index for chain in chains]
        drawn.asked += len(chains)
        # the order of asking, not of finishing, so that the same seed gives the same list
        drawn.candidates[:] = so_far
        for chain in chains:
            if not chain.ok:
                drawn.failures.append(chain)
            elif chain.finish_reason == "cancelled":
                drawn.cancelled.append(chain)
            elif _given_up(chain):
                drawn.given_up.append(chain)
            else:
                drawn.chains.append(chain)
                drawn.candidates.append(self._read.get(chain.sample_index) or read_candidate(chain, self._question))
        if any(chain.finish_reason == "budget" for chain in chains):
            drawn.stopped = "budget"

    def _hear(self, chunk: Chunk) -> None:
        chain = chunk.completion
        if chain is None or not chain.ok or chain.finish_reason == "cancelled":
            return
        found = self._read[chain.sample_index] = read_candidate(chain, self._question)
        self.finished.append((chain, found))
        self.news.set()
        if _given_up(chain):
            return
        self._drawn.candidates.append(found)
        self.run.emit(CandidateFound(index=chunk.sample_index, answer=found.answer))
        if self._on_candidate is not None:
            self._on_candidate(self._drawn.candidates)


class _Counting:
    """Counts finished samples into a tally, equal answers under one label."""

    def __init__(self, question: Question, equivalence: Equivalence, judge: Judge | None, most: int) -> None:
        self.tally = Tally(most=most)
        self._labels = AnswerLabels(question)
        self._equivalence = equivalence
        self._judge = judge

    async def count(self, samples: Sequence[Sample]) -> None:
        """Add samples in the order in which they finished."""
        found = [candidate for _, candidate in samples]
        quality = [None] * len(found) if self._judge is None else list(await self._judge(found))
        before = self.tally
        labels = [
            None if _given_up(chain) else await self._labels.label(candidate.answer, self._equivalence)
            for chain, candidate in samples
        ]
        lowest = [_lowest(chain) for chain, _ in samples]
        self.tally = Tally(
            labels=(*before.labels, *labels),
            weights=(*before.weights, *(1.0 if value is None else value for value in lowest)),
            quality=(*before.quality, *quality),
            lowest=(*before.lowest, *lowest),
            most=before.most,
        )


def leader(candidates: Sequence[Candidate]) -> Solution:
    """Best answer while samples are still coming: votes by the answer's text alone, which needs no waiting."""
    votes: dict[str, int] = {}
    for candidate in candidates:
        if candidate.answer is not None:
            votes[candidate.answer] = votes.get(candidate.answer, 0) + 1
    if not votes:
        return Solution(chosen=0 if candidates else None, candidates=tuple(candidates), confidence=0.0)
    answer = max(votes, key=lambda a: votes[a])
    chosen = next(i for i, c in enumerate(candidates) if c.answer == answer)
    return Solution(chosen=chosen, candidates=tuple(candidates), confidence=votes[answer] / len(candidates))


def _mode(mode: Mode, model: MeteredModel) -> str:
    if mode != "auto":
        return mode
    can = model.capabilities
    return "race" if can.usd_per_completion_token == 0 and not can.prompt_per_sample else "rounds"


def _report(chain: Completion) -> dict[str, JsonValue]:
    found = chain.extras.get(HOOK)
    return found if isinstance(found, dict) else {}


def _lowest(chain: Completion) -> float | None:
    value = _report(chain).get("lowest")
    return float(value) if isinstance(value, int | float) else None


def _given_up(chain: Completion) -> bool:
    return _report(chain).get("stopped_at") is not None


class SampledChains(Parameters):
    """Parameters of a strategy that samples chains. With the same values, all of them draw the same samples."""

    n: Annotated[int, Field(ge=1, le=4096, description="most chains")] = 8
    temperature: Annotated[float, Field(ge=0, le=100, description="sampling temperature")] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1, description="nucleus mass")] = 1.0
    top_k: Annotated[int, Field(ge=0, description="most likely tokens kept; 0 keeps all")] = 0
    max_tokens: Annotated[int, Field(ge=1, description="most tokens of a chain")] = 512
    instruction: Annotated[str | None, Field(description="text behind the question; by default the trigger")] = None
    system: Annotated[str, Field(description="system message; empty leaves it to the model")] = ""
    stopping: Annotated[
        Stopping, Field(description="when there are enough chains: a rule's name, or the rule with its parameters")
    ] = NoStop()
    mode: Annotated[Mode, Field(description="how chains are drawn under a stopping rule: rounds, race, auto")] = "auto"
    width: Annotated[int | None, Field(ge=1, description="chains under way at once in a race; null is all")] = 4

    def prompt(self, question: Question) -> Prompt:
        """What is sampled."""
        instruction = self.trigger(question) if self.instruction is None else self.instruction
        return ask(question, instruction, system=self.system)

    def trigger(self, question: Question) -> str:
        """The instruction if none is given."""
        return step_by_step(question)

    async def draw(self, question: Question, models: Models, run: Run) -> Drawn:
        """Draw chains of the main model; the best so far is offered while they come.

        Raises:
            BadReply: No sample could be had at all.
            CapabilityMissing: The stopping rule needs what the model cannot do.
        """
        sampling = SamplingParams(
            temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, max_tokens=self.max_tokens, n=self.n
        )
        drawn = await draw(
            models.main,
            self.prompt(question),
            sampling,
            question,
            run,
            rule=self.stopping,
            mode=self.mode,
            width=self.width,
            judge=SelfEvaluator(models.main, question, run).qualities,
            on_candidate=lambda found: run.offer(leader(found)),
        )
        if drawn.candidates:
            run.offer(leader(drawn.candidates))
        return drawn
