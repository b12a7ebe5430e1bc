"""Zero-shot chain of thought: one chain, and the answer it states.

Source: Kojima et al., "Large Language Models are Zero-Shot Reasoners" (2022), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, JsonValue

from ..core.errors import BudgetExceeded, CapabilityMissing, InvalidResponse, UserError
from ..core.events import CandidateAdded
from ..core.messages import Completion, Message, Prompt, Request, SamplingParams
from ..core.run import Run
from ..core.types import Candidate, Question, Solution, Step, Stopped
from ..serving.metered.model import MeteredModel
from ..serving.model import Feature
from ..serving.quick_calls import quick_params
from .answers.equivalence import Equivalence
from .candidates import read_candidate
from .conclude import conclude, conclusion_request, with_conclusion
from .early_exit import SegmentedSampler
from .prompts import question_prompt, step_by_step_instruction
from .stopping import EarlyExit, NoStop, ThoughtStopping
from .strategy import Models, Parameters, Stability

JSON_INSTRUCTION = "Write this answer as JSON of the form that was asked for, and nothing else."


class ChainOfThought:
    """One chain of thought.

    Model calls: 1, or 2 with `two_stage` or `json_schema`; 1 more if the chain was cut while the model thought, for its
    answer. With the stopping rule "early-exit", 2 for each segment of the thought.

    Differs: the answer is extracted from the chain itself; the paper's second prompt is used only with `two_stage`, and
    only if the chain states no answer, since instruction-tuned models usually state it.

    With tools, the answer of a chain that calls some is its calls.
    """

    name: ClassVar[str] = "cot"
    summary: ClassVar[str] = "one chain of thought (zero-shot)"
    paper: ClassVar[str] = "Kojima et al. 2022, arXiv:2205.11916"
    confidence: ClassVar[str] = "It has none: a single chain does not say how sure the model is."
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
        max_tokens: Annotated[int, Field(ge=1, description="maximum tokens of the chain, its thought apart")] = 512
        instruction: Annotated[
            str | None, Field(description="text after the question; by default the chain-of-thought trigger")
        ] = None
        system: Annotated[str, Field(description="system message; empty leaves it to the model")] = ""
        two_stage: Annotated[bool, Field(description="prompt for the answer if the chain states none")] = False
        # excluded from dumps if unset, so that keys of runs and evaluations without them stay short
        stopping: ThoughtStopping = NoStop()
        logprobs: Annotated[
            bool,
            Field(
                description="request the log-probabilities of the chain's tokens, where the model returns them",
                exclude_if=lambda value: not value,
            ),
        ] = False
        json_schema: Annotated[
            dict[str, JsonValue] | None,
            Field(
                description="write the answer after the chain, as JSON of this schema",
                exclude_if=lambda value: value is None,
            ),
        ] = None

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """Answer the question.

        Raises:
            CapabilityMissing: `json_schema` is set, and the model does not support it.
            UserError: The model takes no temperature or `top_p`, and the parameters name one; or it does not support
                early exits.
            InvalidResponse: The sample failed.
        """
        config, model = self.config, models.main
        if config.json_schema is not None:
            require_json_schema(model)
        prompt = question_prompt(question, self._instruction(question), system=config.system)
        sampling = SamplingParams(
            temperature=config.temperature,
            default_temperature=0.0,
            top_p=config.top_p,
            max_tokens=config.max_tokens,
            logprobs=config.logprobs and model.capabilities.logprobs,
        )
        notes: dict[str, JsonValue] = {}
        hit_limit = False
        try:
            if isinstance(config.stopping, EarlyExit):
                async with Equivalence() as equivalence:
                    sampler = SegmentedSampler(model, prompt, sampling, config.stopping, question, run, equivalence)
                    open_chain = sampler.start(0)
                    while open_chain.completion is None:
                        await sampler.advance([open_chain])
                chain, hit_limit, notes = open_chain.completion, sampler.hit_limit, {"early_exit": sampler.notes()}
            else:
                ((chain,),) = await model.generate([Request(prompt=prompt, sampling=sampling)])
        except BudgetExceeded as e:
            run.record_limit(e)
            return Solution(chosen=None, stopped="budget")
        if chain.failure is not None:
            raise InvalidResponse(f"the sample failed: {chain.failure.message}")

        was_cut = chain.finish_reason == "thinking"
        (chain,) = await conclude(model, [(prompt, chain)], question, run)
        candidate = read_candidate(chain, question)
        run.set_best(_solution(candidate, notes))
        if config.json_schema is not None and not candidate.tool_calls:
            candidate = await self._write_json(candidate, prompt, config.json_schema, models, run)
        elif config.two_stage and candidate.answer is None and chain.finish_reason == "stop" and not was_cut:
            candidate = await self._trigger_answer(chain, prompt, question, models, run)
        run.emit(CandidateAdded(index=0, answer=candidate.answer))
        solution = _solution(candidate, notes)
        return solution.model_copy(update={"stopped": "budget"}) if hit_limit else solution

    def _instruction(self, question: Question) -> str:
        config = self.config
        return step_by_step_instruction(question) if config.instruction is None else config.instruction

    async def _write_json(
        self, chain: Candidate, prompt: Prompt, schema: dict[str, JsonValue], models: Models, run: Run
    ) -> Candidate:
        """Let the model write the answer as JSON after the chain; no answer if the budget ends before it."""
        try:
            return await answer_as_json(chain, prompt, schema, models.main, self.config.max_tokens)
        except BudgetExceeded as e:
            run.record_limit(e)
            return chain.model_copy(update={"text": "", "answer": None, "tokens": 0, "finish_reason": "budget"})

    async def _trigger_answer(
        self, chain: Completion, prompt: Prompt, question: Question, models: Models, run: Run
    ) -> Candidate:
        """Append the paper's second prompt to the chain."""
        model, stated = models.main, read_candidate(chain, question)
        try:
            ((end,),) = await model.generate([conclusion_request(model, prompt, chain, question)])
        except BudgetExceeded as e:
            run.record_limit(e)
            return stated.model_copy(update={"finish_reason": "budget"})
        except UserError as e:
            run.degrade(f"two_stage: the answer was not requested: {e.message}")
            return stated
        return read_candidate(with_conclusion(chain, end, question), question)


def _solution(candidate: Candidate, notes: Mapping[str, JsonValue]) -> Solution:
    stopped: Stopped = "budget" if candidate.finish_reason == "budget" else "done"
    return Solution(chosen=0, candidates=(candidate,), stopped=stopped, notes=dict(notes))


def require_json_schema(model: MeteredModel) -> None:
    """Refuse a model that does not support JSON schemas, before anything is spent.

    Raises:
        CapabilityMissing: It does not.
    """
    if not model.quick_capabilities.json_schema:
        raise CapabilityMissing("json_schema", model.name)


async def answer_as_json(
    chain: Candidate, prompt: Prompt, schema: Mapping[str, JsonValue], model: MeteredModel, max_tokens: int
) -> Candidate:
    """The answer of a chain as JSON: generated in a further turn, constrained to the schema, without thinking.

    The chain itself is unconstrained, and remains among the steps: a schema over all of it would leave no room to
    reason.

    Args:
        model: The model that writes the JSON.
        max_tokens: Maximum tokens of the JSON.

    Raises:
        BudgetExceeded: The budget does not cover it.
        InvalidResponse: The sample failed.
    """
    json_prompt = Prompt(
        messages=(
            *prompt.messages,
            Message(role="assistant", content=chain.text),
            Message(role="user", content=JSON_INSTRUCTION),
        )
    )
    sampling = quick_params(model, max_tokens=max_tokens, json_schema=dict(schema))
    ((completion,),) = await model.generate([Request(prompt=json_prompt, sampling=sampling)])
    if completion.failure is not None:
        raise InvalidResponse(f"the sample failed: {completion.failure.message}")
    return Candidate(
        text=completion.text,
        answer=completion.text if completion.finish_reason == "stop" else None,
        steps=(*chain.steps, Step(text=completion.text)),
        logprob=completion.logprob,
        tokens=completion.usage.completion_tokens,
        finish_reason=completion.finish_reason,
    )
