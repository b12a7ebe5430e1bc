"""Answers as JSON: written in a turn after the strategy's own answer, held to the question's schema, and validated.

The answer itself stays free text, and remains among the steps: a schema over all of it would leave no room to reason.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

from ..core.errors import BudgetExceeded, InvalidResponse, SchemaNotSatisfied
from ..core.json_schema import OBJECT_SCHEMA, schema_fault
from ..core.messages import Message, Prompt, Request
from ..core.run import Run
from ..core.types import Candidate, Question, Solution, Step
from ..serving.metered.model import MeteredModel
from ..serving.quick_calls import quick_params
from .prompts import question_prompt

JSON_INSTRUCTION: Final = "Write this answer as JSON in the requested format. Output only the JSON."
MAX_JSON_TOKENS: Final = 1024
"""Maximum tokens of the JSON where the strategy has no maximum for its answers."""
MAX_ATTEMPTS: Final = 3
"""How often invalid JSON is requested again, the first time included."""


async def with_json_answer(
    solution: Solution, question: Question, model: MeteredModel, run: Run, *, max_tokens: int
) -> Solution:
    """The solution with its chosen answer as JSON that satisfies `question.answer_schema`; tool calls stay calls.

    If the budget ends before it, or a limit cuts it, there is no answer.

    Raises:
        SchemaNotSatisfied: The model wrote no valid JSON in `MAX_ATTEMPTS` attempts.
        InvalidResponse: The sample failed.
        UserError: The model, or the validation, does not support the schema.
    """
    best, schema = solution.best, question.answer_schema
    if schema is None or best is None or best.tool_calls or not best.text.strip():
        return solution
    try:
        written = await _json_candidate(best, question_prompt(question), schema, model, max_tokens)
    except BudgetExceeded as e:
        run.record_limit(e)
        written = best.model_copy(update={"text": "", "answer": None, "tokens": 0, "finish_reason": "budget"})
    candidates = tuple(written if i == solution.chosen else one for i, one in enumerate(solution.candidates))
    stopped = "budget" if written.finish_reason == "budget" else solution.stopped
    return solution.model_copy(update={"candidates": candidates, "stopped": stopped})


async def _json_candidate(
    answer: Candidate, prompt: Prompt, schema: dict[str, JsonValue], model: MeteredModel, max_tokens: int
) -> Candidate:
    """The answer as JSON: under a grammar where the model has them, otherwise by a prompt with the schema."""
    is_constrained = model.quick_capabilities.json_schema
    instruction = JSON_INSTRUCTION
    if not is_constrained and schema != OBJECT_SCHEMA:
        instruction = (
            f"{JSON_INSTRUCTION} It must conform to this JSON Schema:\n{json.dumps(schema, ensure_ascii=False)}"
        )
    messages = [
        *prompt.messages,
        Message(role="assistant", content=answer.text),
        Message(role="user", content=instruction),
    ]
    sampling = quick_params(model, max_tokens=max_tokens, json_schema=schema if is_constrained else None)
    fault = ""
    for _ in range(MAX_ATTEMPTS):
        ((completion,),) = await model.generate([Request(prompt=Prompt(messages=tuple(messages)), sampling=sampling)])
        if completion.failure is not None:
            raise InvalidResponse(f"the sample failed: {completion.failure.message}")
        has_ended = completion.finish_reason == "stop"
        text = completion.text if is_constrained else unfenced(completion.text)
        fault = await asyncio.to_thread(schema_fault, text, schema) if has_ended else ""
        if not fault:
            return Candidate(
                text=text,
                answer=text if has_ended else None,
                steps=(*answer.steps, Step(text=text)),
                logprob=completion.logprob,
                tokens=completion.usage.completion_tokens,
                finish_reason=completion.finish_reason,
            )
        correction = f"That is not valid: {fault}. Output only the corrected JSON."
        messages += [
            Message(role="assistant", content=completion.text),
            Message(role="user", content=correction),
        ]
    raise SchemaNotSatisfied(
        f"{model.name} wrote no JSON of the requested form in {MAX_ATTEMPTS} attempts: {fault}",
        hint="simplify the schema, or use a model that supports JSON schemas",
    )


def unfenced(text: str) -> str:
    """A text without the Markdown fence that models write around JSON."""
    text = text.strip()
    if not (text.startswith("```") and text.endswith("```") and "\n" in text):
        return text
    return text.partition("\n")[2].removesuffix("```").strip()


def max_json_tokens(parameters: Mapping[str, JsonValue]) -> int:
    """Maximum tokens of the JSON: those of the strategy's answers, where it has a parameter for them."""
    limit = parameters.get("max_tokens")
    return limit if isinstance(limit, int) else MAX_JSON_TOKENS
