"""Adaptive sampling: as many samples as the model itself thinks it needs, the first one greedy.

Source: Manvi, Singh and Ermon, "Adaptive Inference-Time Compute: LLMs Can Predict if They Can Do Better, Even
Mid-Generation" (2024, arXiv:2410.02725): adaptive sampling with an annealed temperature, and pruning mid-generation.

The arithmetic of mid-generation pruning: which of several samples go on at a checkpoint.

Source: Manvi et al., "Adaptive Inference-Time Compute" (2024, arXiv:2410.02725), section on pruning mid-generation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, JsonValue, model_validator

from ..core.answer import Candidate, Solution, Stopped
from ..core.errors import BadReply, LimitExceeded
from ..core.events import CandidateFound, StrategyNote
from ..core.messages import Completion, Prompt, Request, SamplingParams, Usage
from ..core.question import Question
from ..core.run import Run
from ..serving.metered import MeteredModel
from ..serving.model import Feature
from .answers.equivalence import Equivalence
from .answers.kinds import answer_kind
from .candidates import read_candidate
from .prompts import ask, step_by_step
from .self_evaluation import Evaluating, SelfEvaluator
from .stopping import Beta, SelfEvaluated, StoppingRule, Tally
from .strategy import Models, Parameters, Stability


def survivors(quality: Sequence[float | None], keep: float) -> list[int]:
    """Positions of those that go on, ascending: the best `ceil(keep * live)`, at least one.

    A sample without a signal ranks behind all that have one; of equals the earlier one goes on. Only the order of the
    qualities counts.

    Args:
        quality: Quality of each live sample; None where there is no signal.
        keep: Share that goes on, in (0, 1].
    """
    count = max(1, math.ceil(round(keep * len(quality), 9)))
    ranked = sorted(range(len(quality)), key=lambda i: (quality[i] is None, -(quality[i] or 0.0), i))
    return sorted(ranked[:count])


class Adaptive:
    """Sample in rounds of 1, 1, 2, 4, 8 until the best sample's quality reaches `threshold`, at most `n`.

    The k-th sample has temperature `t_max * (1 - 2^-(k-1))`: greedy first, then rising. Quality is the model's own
    estimate that a sample is at least as good as a fresh one (`self_evaluation`). The answer is that of the class with
    the largest sum of qualities, or the best sample's.

    With `prune_at`, all `n` samples begin at once at `t_max`; at each of these token counts the model judges the
    beginnings, the best share `keep` goes on, and the others are ended there.

    Model calls: one for each sample of a round (they run as one batch) and two next-token calls for each evaluation.

    Differs: the paper trains the signal; this one is prompted, and over-confident. An uncalibrated signal stops nothing
    unless `threshold` is given by hand: without either, the Beta rule of Adaptive-Consistency (Aggarwal et al. 2023)
    decides, and the answer tells so. Pruned samples go on as continuations of their own beginnings, so that what is
    generated does not depend on how fast the evaluation was. Selecting by class is ours: a prompted signal ranks
    samples of one prompt weakly.
    """

    name: ClassVar[str] = "adaptive"
    summary: ClassVar[str] = "as many samples as the model thinks it needs; doomed ones can be ended early"
    paper: ClassVar[str] = "Manvi et al. 2024, arXiv:2410.02725"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)

    class Config(Parameters):
        """Parameters of `adaptive`."""

        n: Annotated[int, Field(ge=1, le=4096, description="most samples")] = 16
        threshold: Annotated[
            float | None, Field(description="quality at which to stop; by default 0.85 if the signal is calibrated")
        ] = None
        t_max: Annotated[float, Field(ge=0, le=100, description="temperature that the samples rise to")] = 1.0
        top_p: Annotated[float, Field(gt=0, le=1, description="nucleus mass")] = 1.0
        max_tokens: Annotated[int, Field(ge=1, description="most tokens of a sample")] = 512
        select: Annotated[
            Literal["class", "best"], Field(description="answer of the class with most quality, or of the best sample")
        ] = "class"
        alpha: Annotated[float, Field(allow_inf_nan=False, description="offset of the calibrated quality")] = 0.0
        beta: Annotated[float, Field(allow_inf_nan=False, description="slope of the calibrated quality")] = 1.0
        prune_at: Annotated[
            tuple[Annotated[int, Field(ge=1)], ...], Field(description="token counts at which samples are pruned")
        ] = ()
        keep: Annotated[float, Field(gt=0, le=1, description="share of the live samples that goes on there")] = 0.5
        instruction: Annotated[str | None, Field(description="text behind the question; by default the trigger")] = None
        system: Annotated[str, Field(description="system message; empty leaves it to the model")] = ""

        @model_validator(mode="after")
        def _checkpoints_rise(self) -> Self:
            if list(self.prune_at) != sorted(set(self.prune_at)):
                raise ValueError("the token counts of prune_at must rise")
            return self

        @property
        def evaluating(self) -> Evaluating:
            """How samples are evaluated."""
            return Evaluating(alpha=self.alpha, beta=self.beta, system=self.system)

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        config = self.config
        instruction = step_by_step(question) if config.instruction is None else config.instruction
        prompt = ask(question, instruction, system=config.system)
        evaluator = SelfEvaluator(models.main, question, run, config.evaluating)
        async with Equivalence() as equivalence:
            found = _Found(question, run, evaluator, equivalence)
            try:
                if config.prune_at:
                    await self._pruned(prompt, models.main, found)
                else:
                    await self._adaptive(prompt, models.main, found)
            except LimitExceeded as e:
                run.note_limit(e)
                found.stopped = "budget"
        found.check_there_is_one()
        return found.solution(config.select)

    async def _adaptive(self, prompt: Prompt, model: MeteredModel, found: _Found) -> None:
        """Rounds of samples until the rule has enough."""
        config, rule = self.config, self._rule(found.run)
        found.notes["rule"] = rule.model_dump(mode="json")
        asked = 0
        while asked < config.n and found.stopped == "done":
            wave = min(config.n - asked, max(1, asked))  # 1, 1, 2, 4, 8
            wave = found.run.ledger.affordable_samples(wave, config.max_tokens)
            requests = [
                Request(prompt=prompt, sampling=self._sampling(annealed(k, config.t_max)), samples=(k - 1,))
                for k in range(asked + 1, asked + wave + 1)
            ]
            replies = await model.generate(requests)
            asked += wave
            await found.add([chain for (chain,) in replies])
            if found.candidates and rule.enough(found.tally):
                break
        found.notes["samples"] = asked

    async def _pruned(self, prompt: Prompt, model: MeteredModel, found: _Found) -> None:
        """All samples at once; the weakest beginnings are ended at each checkpoint."""
        config = self.config
        wave = found.run.ledger.affordable_samples(config.n, config.prune_at[0])
        live = [_Beginning(index) for index in range(wave)]
        ends = [t for t in config.prune_at if t < config.max_tokens] + [config.max_tokens]
        pruned: list[JsonValue] = []
        found.notes["samples"], found.notes["pruned"] = wave, pruned
        at = 0
        try:
            for checkpoint in ends:
                requests = [
                    Request(
                        prompt=prompt.with_prefix(b.token_ids) if b.token_ids else prompt,
                        sampling=self._sampling(config.t_max, checkpoint - at),
                        samples=(b.index,),
                    )
                    for b in live
                ]
                replies = await model.generate(requests)
                for beginning, (chain,) in zip(live, replies, strict=True):
                    beginning.extend(chain)
                at = checkpoint
                whole, live = [b for b in live if not b.unfinished], [b for b in live if b.unfinished]
                await found.add([b.chain() for b in whole])
                if not live or checkpoint == config.max_tokens:
                    break
                judged = await found.evaluator.evaluate([b.text for b in live], unfinished=True)
                stay = survivors([None if e is None else e.q for e in judged], config.keep)
                ended = [b.index for i, b in enumerate(live) if i not in stay]
                pruned.append({"at": checkpoint, "live": len(live), "ended": list(ended)})
                note = StrategyNote(strategy=Adaptive.name, name="samples.pruned", data={"checkpoint": pruned[-1]})
                found.run.emit(note)
                live = [live[i] for i in stay]
        finally:  # what was cut by a limit may hold its answer
            await found.add([b.chain() for b in live if b.begun])

    def _rule(self, run: Run) -> StoppingRule:
        """The model's own judgement, if it may be believed; else agreement."""
        config = self.config
        if config.threshold is not None:
            return SelfEvaluated(threshold=config.threshold)
        if config.evaluating.calibrated:
            return SelfEvaluated(threshold=0.85)
        run.degrade("adaptive: the self-evaluation is not calibrated, so agreement decides when to stop (beta rule)")
        return Beta()

    def _sampling(self, temperature: float, max_tokens: int | None = None) -> SamplingParams:
        config = self.config
        return SamplingParams(temperature=temperature, top_p=config.top_p, max_tokens=max_tokens or config.max_tokens)


def annealed(k: int, t_max: float) -> float:
    """Temperature of the k-th sample, k from 1: `t_max * (1 - 2^-(k-1))`."""
    return t_max * (1.0 - 2.0 ** (1 - k))


class _Beginning:
    """A sample that may be pruned, as far as it got."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.text = ""
        self.token_ids: tuple[int, ...] = ()
        self.unfinished = True
        self._logprobs: list[float] = []
        self._last: Completion | None = None

    @property
    def begun(self) -> bool:
        """Whether anything was asked of the model for it."""
        return self._last is not None

    def extend(self, chain: Completion) -> None:
        """Put a continuation behind it."""
        self.text += chain.text
        self.token_ids += chain.token_ids
        self._logprobs += chain.logprobs or ()
        self._last = chain
        self.unfinished = chain.finish_reason == "length"

    def chain(self) -> Completion:
        """The sample as one completion."""
        assert self._last is not None  # it was begun
        whole = len(self._logprobs) == len(self.token_ids)
        return self._last.model_copy(
            update={
                "text": self.text,
                "token_ids": self.token_ids,
                "logprobs": tuple(self._logprobs) if whole else None,
                "usage": Usage(completion_tokens=len(self.token_ids)),
            }
        )


class _Found:
    """The samples so far and what the model thinks of them."""

    def __init__(self, question: Question, run: Run, evaluator: SelfEvaluator, equivalence: Equivalence) -> None:
        self.question = question
        self.equivalence = equivalence
        self.run = run
        self.evaluator = evaluator
        self.candidates: list[Candidate] = []
        self.quality: list[float | None] = []
        self.failures: list[Completion] = []
        self.stopped: Stopped = "done"
        self.notes: dict[str, JsonValue] = {}
        self.classes: list[list[int]] = []
        """Positions of equal answers."""
        self._records: list[JsonValue] = []

    async def add(self, chains: Sequence[Completion]) -> None:
        """Read, evaluate and count samples."""
        self.failures += [chain for chain in chains if not chain.ok]
        fresh = [read_candidate(chain, self.question) for chain in chains if chain.ok]
        if any(chain.finish_reason == "budget" for chain in chains):
            self.stopped = "budget"
        for candidate in fresh:
            self.run.emit(CandidateFound(index=len(self.candidates), answer=candidate.answer))
            self.candidates.append(candidate)
            self.quality.append(None)
        if not fresh:
            return
        self._offer()
        self.classes = await self.equivalence.group([c.answer for c in self.candidates], answer_kind(self.question))
        judged = await self.evaluator.evaluate([c.text for c in fresh])
        self.quality[-len(fresh) :] = [None if e is None else e.q for e in judged]
        self._records += [None if e is None else e.model_dump(mode="json") for e in judged]
        self._offer()

    @property
    def tally(self) -> Tally:
        """The samples as a stopping rule sees them."""
        labels: list[int | None] = [None] * len(self.candidates)
        for number, members in enumerate(self.classes):
            for i in members:
                labels[i] = number
        n = len(labels)
        return Tally(tuple(labels), (1.0,) * n, tuple(self.quality), (None,) * n, most=n)

    def _offer(self) -> None:
        if self.candidates:
            self.run.offer(Solution(chosen=self._best(), candidates=tuple(self.candidates)))

    def _best(self) -> int:
        """The best sample; of equals the earlier one, which is cheaper and was drawn at a lower temperature."""
        return max(range(len(self.quality)), key=lambda i: (-math.inf if (q := self.quality[i]) is None else q, -i))

    def check_there_is_one(self) -> None:
        """Raises `BadReply` if all samples failed; tells of those that did."""
        if self.failures and not self.candidates and (failure := self.failures[0].failure) is not None:
            raise BadReply(f"no sample could be had: {failure.message}")
        if self.failures:
            self.run.degrade(f"{len(self.failures)} samples failed and did not count")

    def solution(self, select: Literal["class", "best"]) -> Solution:
        """The answer."""
        notes = {**self.notes, "evaluations": self._records}
        if not self.candidates:
            return Solution(chosen=None, stopped=self.stopped, notes=notes)
        scored = tuple(c.model_copy(update={"score": q}) for c, q in zip(self.candidates, self.quality, strict=True))
        if not any(q is not None for q in self.quality):
            self.run.degrade("adaptive: the model's self-evaluation gave no signal, so every sample counts the same")
        sums = {members[0]: math.fsum(self._weight(i) for i in members) for members in self.classes}
        best = self._best()
        if select == "class" and sums:
            lead = max(sums, key=lambda first: (sums[first], -first))
            members = next(m for m in self.classes if m[0] == lead)
            chosen = max(members, key=lambda i: (self._weight(i), -i))
            total = math.fsum(self._weight(i) for i in range(len(self.candidates)))
            confidence = sums[lead] / total if total > 0 else None
        else:
            chosen, confidence = best, self.quality[best]
        return Solution(chosen=chosen, candidates=scored, confidence=confidence, stopped=self.stopped, notes=notes)

    def _weight(self, i: int) -> float:
        """Quality of a sample; 1 for all where none has a signal, 0 for those that have none among some that have."""
        if all(q is None for q in self.quality):
            return 1.0
        return self.quality[i] or 0.0
