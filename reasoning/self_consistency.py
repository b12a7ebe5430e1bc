"""Self-consistency: sample many chains and take the answer most of them reach.

Source: Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models" (ICLR 2023), section 2.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, ClassVar

from pydantic import Field

from ..core.answer import Candidate, Solution, Stopped
from ..core.errors import BadReply, LimitExceeded
from ..core.events import CandidateFound, VoteUpdated
from ..core.messages import Chunk, Completion, Request, Sampling
from ..core.question import Question
from ..core.run import Run
from ..serving.model import Feature
from .answers import answer_kind
from .candidates import read_candidate
from .equivalence import Equivalence
from .prompts import ask, step_by_step
from .strategy import Models, Parameters, Stability


class SelfConsistency:
    """Sample `n` chains, let their answers vote.

    Model calls: 1 for all `n` samples. With a token budget that does not cover `n` full chains, as many as it covers at
    a time: chains are mostly shorter than their limit, so later calls spend what earlier ones left.

    Confidence is the winner's share of all samples, those without an answer included. Ties go to the answer reached
    first. Answers are compared by mathematical equivalence, not as strings.
    """

    name: ClassVar[str] = "self-consistency"
    summary: ClassVar[str] = "many sampled chains, majority vote over their answers"
    paper: ClassVar[str] = "Wang et al. 2023, arXiv:2203.11171"
    stability: ClassVar[Stability] = "stable"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)

    class Config(Parameters):
        """Parameters of `self-consistency`."""

        n: Annotated[int, Field(ge=1, le=4096, description="chains")] = 8
        temperature: Annotated[float, Field(ge=0, le=100, description="sampling temperature")] = 0.7
        top_p: Annotated[float, Field(gt=0, le=1, description="nucleus mass")] = 1.0
        top_k: Annotated[int, Field(ge=0, description="most likely tokens kept; 0 keeps all")] = 0
        max_tokens: Annotated[int, Field(ge=1, description="most tokens of a chain")] = 512
        instruction: Annotated[str | None, Field(description="text behind the question; by default the trigger")] = None
        system: Annotated[str, Field(description="system message; empty leaves it to the model")] = ""

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        config = self.config
        instruction = step_by_step(question) if config.instruction is None else config.instruction
        prompt = ask(question, instruction, system=config.system)
        sampling = Sampling(
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            max_tokens=config.max_tokens,
            n=config.n,
        )
        candidates: list[Candidate] = []
        failures: list[Completion] = []
        stopped: Stopped = "done"

        def hear(chunk: Chunk) -> None:
            if chunk.completion is not None and chunk.completion.ok:
                candidates.append(read_candidate(chunk.completion, question))
                run.emit(CandidateFound(index=chunk.sample_index, answer=candidates[-1].answer))
                run.offer(_leader(candidates))

        asked = 0
        while asked < config.n and stopped == "done":
            wave = run.ledger.affordable_samples(config.n - asked, config.max_tokens)
            request = Request(prompt=prompt, sampling=sampling, samples=tuple(range(asked, asked + wave)))
            so_far = len(candidates)
            try:
                (chains,) = await models.main.generate([request], hear)
            except LimitExceeded as e:
                run.note_limit(e)
                stopped = "budget"
                break
            asked += wave
            # the order of asking, not of finishing, so that the same seed gives the same list
            candidates[so_far:] = [read_candidate(chain, question) for chain in chains if chain.ok]
            failures += [chain for chain in chains if not chain.ok]
            if any(chain.finish_reason == "budget" for chain in chains):
                stopped = "budget"

        if not candidates and failures and failures[0].failure is not None:
            raise BadReply(f"no sample could be had: {failures[0].failure.message}")
        if failures:
            run.degrade(f"{len(failures)} of {asked} samples failed and did not vote")
        return await _vote(candidates, question, run, stopped)


async def _vote(candidates: list[Candidate], question: Question, run: Run, stopped: Stopped) -> Solution:
    """The paper's marginalisation over chains, with every chain counted the same (its unweighted sum)."""
    if not candidates:
        return Solution(chosen=None, stopped=stopped)
    async with Equivalence() as equivalence:
        groups = await equivalence.group([c.answer for c in candidates], answer_kind(question))
    groups = [g for g in groups if candidates[g[0]].answer is not None]
    groups.sort(key=len, reverse=True)  # stable: of equals, the one reached first stays first
    votes = {str(candidates[g[0]].answer): len(g) for g in groups}
    run.emit(VoteUpdated(votes=votes, total=len(candidates)))
    share = {i: len(g) / len(candidates) for g in groups for i in g}
    scored = tuple(c.model_copy(update={"score": share.get(i)}) for i, c in enumerate(candidates))
    return Solution(
        chosen=groups[0][0] if groups else 0,
        candidates=scored,
        confidence=share[groups[0][0]] if groups else 0.0,
        stopped=stopped,
        notes={"votes": dict(votes)},
    )


def _leader(candidates: list[Candidate]) -> Solution:
    """Best answer while samples are still coming: votes by the answer's text alone, which needs no waiting."""
    votes = Counter(c.answer for c in candidates if c.answer is not None)
    if not votes:
        return Solution(chosen=0, candidates=tuple(candidates), confidence=0.0)
    answer, count = votes.most_common(1)[0]
    chosen = next(i for i, c in enumerate(candidates) if c.answer == answer)
    return Solution(chosen=chosen, candidates=tuple(candidates), confidence=count / len(candidates))
