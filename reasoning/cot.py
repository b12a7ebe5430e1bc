"""Zero-shot chain of thought: one chain, and the answer it states.

Source: Kojima et al., "Large Language Models are Zero-Shot Reasoners" (2022), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, JsonValue

from ..core.errors import BudgetExceeded, CapabilityMissing, InvalidResponse
from ..core.events import CandidateAdded
from ..core.messages import TOOL_CHOICE_AUTO, Message, Prompt, Request, SamplingParams
from ..core.run import Run
from ..core.types import Candidate, Question, Solution, Step
from ..serving.metered.model import MeteredModel
from ..serving.model import Feature
from .candidates import read_candidate
from .prompts import answer_trigger, question_prompt, step_by_step_instruction
from .strategy import Models, Parameters, Stability

JSON_INSTRUCTION = "Write this answer as JSON of the form that was asked for, and nothing else."


class ChainOfThought:
    """One chain of thought.

    Model calls: 1, or 2 with `two_stage` or `json_schema`.

    Differs: the answer is extracted from the chain itself; the paper's second prompt is used only with `two_stage`, and
    only if the chain states no answer, since instruction-tuned models usually state it.

    With tools, the answer of a chain that calls some is its calls.
    """

    name: ClassVar[str] = "cot"
    summary: ClassVar[str] = "one chain of thought (zero-shot)"
    paper: ClassVar[str] = "Kojima et al. 2022, arXiv:2205.11916"
    stability: ClassVar[Stability] = "stable"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    supports_tools: ClassVar[bool] = True

    class Config(Parameters):
        """Parameters of `cot`."""

        temperature: Annotated[float, Field(ge=0, le=100, description="sampling temperature; 0 is greedy")] = 0.0
        top_p: Annotated[float, Field(gt=0, le=1, description="nucleus mass")] = 1.0
        max_tokens: Annotated[int, Field(ge=1, description="maximum tokens of the chain")] = 512
        instruction: Annotated[
            str | None, Field(description="text after the question; by default the chain-of-thought trigger")
        ] = None
        system: Annotated[str, Field(description="system message; empty leaves it to the model")] = ""
        two_stage: Annotated[bool, Field(description="prompt for the answer if the chain states none")] = False
        # excluded from dumps if unset, so that keys of runs and evaluations without it stay short
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
        config = self.config
        if config.json_schema is not None:
            require_json_schema(models.main)
        prompt = question_prompt(question, self._instruction(question), system=config.system)
        sampling = SamplingParams(temperature=config.temperature, top_p=config.top_p, max_tokens=config.max_tokens)
        try:
            ((chain,),) = await models.main.generate([Request(prompt=prompt, sampling=sampling)])
        except BudgetExceeded as e:
            run.record_limit(e)
            return Solution(chosen=None, stopped="budget")
        if chain.failure is not None:
            raise InvalidResponse(f"the sample failed: {chain.failure.message}")

        candidate = read_candidate(chain, question)
        run.set_best(_solution(candidate))
        if config.json_schema is not None and not candidate.tool_calls:
            candidate = await self._write_json(candidate, prompt, config.json_schema, models, run)
        elif config.two_stage and candidate.answer is None and chain.finish_reason == "stop":
            candidate = await self._trigger_answer(candidate, question, models, run)
        run.emit(CandidateAdded(index=0, answer=candidate.answer))
        return _solution(candidate)

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

    async def _trigger_answer(self, chain: Candidate, question: Question, models: Models, run: Run) -> Candidate:
        """Append the paper's second prompt to the chain."""
        prefix = f"{chain.text.rstrip()}\n\n{answer_trigger(question)}"
        without_tools = question.model_copy(update={"tools": (), "tool_choice": TOOL_CHOICE_AUTO})
        prompt = question_prompt(without_tools, self._instruction(question), system=self.config.system, prefix=prefix)
        sampling = SamplingParams(temperature=0.0, max_tokens=32, stop=("\n",))
        try:
            ((end,),) = await models.main.generate([Request(prompt=prompt, sampling=sampling)])
        except BudgetExceeded as e:
            run.record_limit(e)
            return chain.model_copy(update={"finish_reason": "budget"})
        candidate = read_candidate(end.model_copy(update={"text": prefix + end.text, "logprobs": None}), question)
        return candidate.model_copy(update={"tokens": chain.tokens + candidate.tokens})


def _solution(candidate: Candidate) -> Solution:
    stopped = "budget" if candidate.finish_reason == "budget" else "done"
    return Solution(chosen=0, candidates=(candidate,), stopped=stopped)


def require_json_schema(model: MeteredModel) -> None:
    """Refuse a model that does not support JSON schemas, before anything is spent.

    Raises:
        CapabilityMissing: It does not.
    """
    if not model.capabilities.json_schema:
        raise CapabilityMissing("json_schema", model.name)


async def answer_as_json(
    chain: Candidate, prompt: Prompt, schema: Mapping[str, JsonValue], model: MeteredModel, max_tokens: int
) -> Candidate:
    """The answer of a chain as JSON: generated greedily in a further turn, constrained to the schema.

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
    sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens, json_schema=dict(schema))
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
