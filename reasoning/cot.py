"""Zero-shot chain of thought: one chain, and the answer it states.

Source: Kojima et al., "Large Language Models are Zero-Shot Reasoners" (2022), section 3.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ..core.errors import BudgetExceeded, CapabilityMissing, InvalidResponse
from ..core.events import CandidateAdded
from ..core.messages import Request, SamplingParams
from ..core.run import Run
from ..core.types import Candidate, Question, Solution, Stopped
from ..serving.model import Feature
from .answers.extraction import read_candidate
from .conclude import as_cut_by_budget, conclude, narrowed_to_budget
from .prompts import question_prompt, step_by_step_instruction
from .strategy import MAX_TOKENS, Models, Parameters, Stability


class ChainOfThought:
    """One chain of thought.

    Model calls: 1; 1 more if the chain was cut while the model thought, for its answer.

    Differs: the prompt asks the chain to state the answer, instead of requesting it by the paper's second prompt.

    With tools, the answer of a chain that calls some is its calls.
    """

    name: ClassVar[str] = "cot"
    summary: ClassVar[str] = "write one chain of thought (zero-shot)"
    paper: ClassVar[str] = "Kojima et al. 2022, arXiv:2205.11916"
    confidence: ClassVar[str] = "It has none: a single chain does not say how sure the model is."
    family: ClassVar[str] = "chains"
    when_to_use: ClassVar[str] = "Start here. Also for prose and advice, which no vote can compare."
    stability: ClassVar[Stability] = "stable"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    supports_tools: ClassVar[bool] = True

    class Config(Parameters):
        """Parameters of `cot`."""

        temperature: Annotated[
            float | None,
            Field(ge=0, le=100, description="sampling temperature; by default 0, greedy, where the model takes one"),
        ] = None
        top_p: Annotated[float | None, Field(gt=0, le=1, description="nucleus mass; by default the model's own")] = None
        max_tokens: Annotated[
            int, Field(ge=1, le=MAX_TOKENS, description="maximum tokens of the chain, its thought apart")
        ] = 512
        instruction: Annotated[
            str | None, Field(description="text after the question; by default the chain-of-thought trigger")
        ] = None
        system: Annotated[str, Field(description="system message; empty leaves it to the model")] = ""
        # excluded from dumps if unset, so that keys of runs and evaluations without them stay short
        top_k: Annotated[
            int,
            Field(
                ge=0,
                le=MAX_TOKENS,
                description="most likely tokens kept; 0 keeps all",
                exclude_if=lambda value: not value,
            ),
        ] = 0
        logprobs: Annotated[
            bool,
            Field(
                description="request the log-probabilities of the chain's tokens, where the model returns them",
                exclude_if=lambda value: not value,
            ),
        ] = False
        top_logprobs: Annotated[
            int,
            Field(
                ge=0,
                le=20,
                description="alternatives at each of the chain's tokens, with log-probabilities",
                exclude_if=lambda value: not value,
            ),
        ] = 0

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """Answer the question.

        Raises:
            CapabilityMissing: The model does not return as many `top_logprobs`.
            UserError: The model takes no temperature or `top_p`, and the parameters name one.
            InvalidResponse: The sample failed.
        """
        config, model = self.config, models.main
        if config.top_logprobs > model.capabilities.top_logprobs:
            raise CapabilityMissing(f"top_logprobs={config.top_logprobs}", model.name)
        prompt = question_prompt(question, self._instruction(question), system=config.system)
        sampling = SamplingParams(
            temperature=config.temperature,
            default_temperature=0.0,
            top_p=config.top_p,
            top_k=config.top_k,
            max_tokens=config.max_tokens,
            logprobs=(config.logprobs or config.top_logprobs > 0) and model.capabilities.logprobs,
            top_logprobs=config.top_logprobs,
        )
        try:
            request, limit = narrowed_to_budget(model, Request(prompt=prompt, sampling=sampling), 1, run)
            ((chain,),) = await model.generate([request])
            if limit is not None:
                chain = as_cut_by_budget(chain, prompt, run, limit)
        except BudgetExceeded as e:
            run.record_limit(e)
            return Solution(chosen=None, stopped="budget")
        if chain.failure is not None:
            raise InvalidResponse(f"the sample failed: {chain.failure.message}")

        (chain,) = await conclude(model, [(prompt, chain)], question, run)
        candidate = read_candidate(chain, question)
        run.set_best(_solution(candidate))
        run.emit(CandidateAdded(index=0, answer=candidate.answer))
        return _solution(candidate)

    def _instruction(self, question: Question) -> str:
        config = self.config
        return step_by_step_instruction(question) if config.instruction is None else config.instruction


def _solution(candidate: Candidate) -> Solution:
    stopped: Stopped = "budget" if candidate.finish_reason == "budget" else "done"
    return Solution(chosen=0, candidates=(candidate,), stopped=stopped)
