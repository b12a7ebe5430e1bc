"""Zero-shot chain of thought: one chain, read for its answer.

Source: Kojima et al., "Large Language Models are Zero-Shot Reasoners" (2022), section 3.

An answer as JSON of a given schema, written behind the reasoning that led to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, JsonValue

from ..core.answer import Candidate, Solution, Step
from ..core.errors import BadReply, CapabilityMissing, LimitExceeded
from ..core.events import CandidateFound
from ..core.messages import Message, Prompt, Request, SamplingParams
from ..core.question import Question
from ..core.run import Run
from ..core.tools import TOOL_CHOICE_AUTO
from ..serving.metered import MeteredModel
from ..serving.model import Feature
from .candidates import read_candidate
from .prompts import ask, step_by_step, therefore
from .strategy import Models, Parameters, Stability

AS_JSON = "Write this answer as JSON of the form that was asked for, and nothing else."


def require_json(model: MeteredModel) -> None:
    """Refuse a model whose texts cannot be held to a schema, before anything is spent.

    Raises:
        CapabilityMissing: They cannot.
    """
    if not model.capabilities.json_schema:
        raise CapabilityMissing("json_schema", model.name)


async def as_json(
    chain: Candidate, prompt: Prompt, schema: Mapping[str, JsonValue], model: MeteredModel, max_tokens: int
) -> Candidate:
    """The answer of a chain as JSON: asked for in a turn behind it, greedily, and held to the schema.

    The chain itself is free, and stays among the steps: a schema that held all of it would leave no room to reason.

    Args:
        chain: The chain.
        prompt: What it was the reply to.
        schema: The schema.
        model: Who writes it.
        max_tokens: Most tokens of the JSON.

    Raises:
        LimitExceeded: The budget does not cover it.
        BadReply: There was no sample.
    """
    asked = Prompt(
        messages=(
            *prompt.messages,
            Message(role="assistant", content=chain.text),
            Message(role="user", content=AS_JSON),
        )
    )
    sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens, json_schema=dict(schema))
    ((written,),) = await model.generate([Request(prompt=asked, sampling=sampling)])
    if written.failure is not None:
        raise BadReply(f"the model gave no sample: {written.failure.message}")
    return Candidate(
        text=written.text,
        answer=written.text if written.finish_reason == "stop" else None,
        steps=(*chain.steps, Step(text=written.text)),
        logprob=written.logprob,
        tokens=written.usage.completion_tokens,
        finish_reason=written.finish_reason,
    )


class ChainOfThought:
    """One chain of thought.

    Model calls: 1, or 2 with `two_stage` or `json_schema`.

    Differs: the answer is read out of the chain itself; the paper's second prompt is asked only with `two_stage`, and
    only where the chain does not state an answer, since instruction-tuned models mostly state it.

    With tools, a chain that calls some has its calls as its answer.
    """

    name: ClassVar[str] = "cot"
    summary: ClassVar[str] = "one chain of thought (zero-shot)"
    paper: ClassVar[str] = "Kojima et al. 2022, arXiv:2205.11916"
    stability: ClassVar[Stability] = "stable"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    takes_tools: ClassVar[bool] = True

    class Config(Parameters):
        """Parameters of `cot`."""

        temperature: Annotated[float, Field(ge=0, le=100, description="sampling temperature; 0 is greedy")] = 0.0
        top_p: Annotated[float, Field(gt=0, le=1, description="nucleus mass")] = 1.0
        max_tokens: Annotated[int, Field(ge=1, description="most tokens of the chain")] = 512
        instruction: Annotated[str | None, Field(description="text behind the question; by default the trigger")] = None
        system: Annotated[str, Field(description="system message; empty leaves it to the model")] = ""
        two_stage: Annotated[bool, Field(description="ask for the answer if the chain states none")] = False
        # where there is none it is in no dump: names of evaluations that know nothing of it stay as they were
        json_schema: Annotated[
            dict[str, JsonValue] | None,
            Field(
                description="write the answer behind the chain, as JSON of this schema",
                exclude_if=lambda value: value is None,
            ),
        ] = None

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        config = self.config
        if config.json_schema is not None:
            require_json(models.main)
        instruction = step_by_step(question) if config.instruction is None else config.instruction
        prompt = ask(question, instruction, system=config.system)
        sampling = SamplingParams(temperature=config.temperature, top_p=config.top_p, max_tokens=config.max_tokens)
        try:
            ((chain,),) = await models.main.generate([Request(prompt=prompt, sampling=sampling)])
        except LimitExceeded as e:
            run.note_limit(e)
            return Solution(chosen=None, stopped="budget")
        if chain.failure is not None:
            raise BadReply(f"the model gave no sample: {chain.failure.message}")

        candidate = read_candidate(chain, question)
        run.offer(_solution(candidate))
        if config.json_schema is not None and not candidate.tool_calls:
            candidate = await self._as_json(candidate, prompt, config.json_schema, models, run)
        elif config.two_stage and candidate.answer is None and chain.finish_reason == "stop":
            candidate = await self._conclude(candidate, question, models, run)
        run.emit(CandidateFound(index=0, answer=candidate.answer))
        return _solution(candidate)

    async def _as_json(
        self, chain: Candidate, prompt: Prompt, schema: dict[str, JsonValue], models: Models, run: Run
    ) -> Candidate:
        """Have the answer written as JSON behind the chain; where the budget ends before it, there is no answer."""
        try:
            return await as_json(chain, prompt, schema, models.main, self.config.max_tokens)
        except LimitExceeded as e:
            run.note_limit(e)
            return chain.model_copy(update={"text": "", "answer": None, "tokens": 0, "finish_reason": "budget"})

    async def _conclude(self, chain: Candidate, question: Question, models: Models, run: Run) -> Candidate:
        """Put the paper's second prompt behind the chain."""
        instruction = step_by_step(question) if self.config.instruction is None else self.config.instruction
        prefix = f"{chain.text.rstrip()}\n\n{therefore(question)}"
        bare = question.model_copy(
            update={"tools": (), "tool_choice": TOOL_CHOICE_AUTO}
        )  # nothing is to be called any more
        prompt = ask(bare, instruction, system=self.config.system, prefix=prefix)
        sampling = SamplingParams(temperature=0.0, max_tokens=32, stop=("\n",))
        try:
            ((end,),) = await models.main.generate([Request(prompt=prompt, sampling=sampling)])
        except LimitExceeded as e:
            run.note_limit(e)
            return chain.model_copy(update={"finish_reason": "budget"})
        whole = end.model_copy(update={"text": prefix + end.text, "logprobs": None})
        concluded = read_candidate(whole, question)
        return concluded.model_copy(update={"tokens": chain.tokens + concluded.tokens})


def _solution(candidate: Candidate) -> Solution:
    stopped = "budget" if candidate.finish_reason == "budget" else "done"
    return Solution(chosen=0, candidates=(candidate,), stopped=stopped)
