"""`ThoughtJudge`: the scores Fg of steps and Fa of their notes, a batch in one call; `node_score` combines them.

Both are in [0, 1] (Pan, Deng, Huang 2025, arXiv:2502.02390; how the model is asked for them is ours). The judge reads
the path as a conversation and the notes as quoted data, never the snippets that the knowledge sources returned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...core.errors import UserError
from ...core.json_schema import JsonSchema
from ...core.messages import Request
from ...serving.metered.model import MeteredModel
from ...serving.output_schemas import enum_schema, object_schema
from ...serving.quick_calls import quick_params, report_cut
from . import prompts
from .prompts import PathStep, ThoughtPrompts

Judging = Literal["merged", "reward"]
"""Where scores come from: all of a step from one completion, or those of steps from the reward model."""
_TOKENS = 32
"""Maximum tokens of a completion."""


def node_score(step: float, notes: float | None, beta: float) -> float:
    """The score e of a node: (Fg + beta Fa) / (1 + beta), or Fg without notes.

    Differs: summaries of the paper have Fg + beta Fa, with Fa = 0 without notes, which rewards inventing notes.

    Args:
        step: Fg, in [0, 1].
        notes: Fa, in [0, 1]; None without notes.
        beta: Weight of Fa, not negative.

    Raises:
        UserError: A value is out of its range.
    """
    if not (0 <= step <= 1 and (notes is None or 0 <= notes <= 1) and beta >= 0):
        raise UserError(
            f"scores {step}, {notes} with weight {beta}", hint="scores are in [0, 1], the weight at least 0"
        )
    return step if notes is None else min(1.0, (step + beta * notes) / (1 + beta))


_NUMBER = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,4})?(?![\d.]*\d)")


def read_scores(text: str, aspects: Sequence[str]) -> list[float | None]:
    """Parse scores from 0 to 10 as numbers in [0, 1], clipped.

    Args:
        text: The completion, JSON or not.
        aspects: The requested aspects, in order.

    Returns:
        One for each aspect: the number after its name, else the number at its position among all numbers; None if
        missing.
    """
    named = [_named(text, aspect) for aspect in aspects]
    if all(score is not None for score in named):
        return named
    numbers = [
        _scaled(float(n)) for n in _NUMBER.findall(re.sub(r"\s*/\s*10\b|\bout of 10\b|\b0\s*-\s*10\b", " ", text))
    ]
    if any(score is not None for score in named):
        return named
    return [numbers[i] if i < len(numbers) else None for i in range(len(aspects))]


def _named(text: str, aspect: str) -> float | None:
    match = re.search(rf'"?\b{re.escape(aspect)}\b"?\s*[:=]\s*"?(\d{{1,3}}(?:\.\d{{1,4}})?)', text, re.IGNORECASE)
    return None if match is None else _scaled(float(match[1]))


def _scaled(score: float) -> float:
    return min(1.0, score / 10)


MAX_SCORE = 10


def scores_schema(aspects: Sequence[str]) -> JsonSchema:
    """JSON schema of one score from 0 to 10 for each aspect."""
    return object_schema(dict.fromkeys(aspects, enum_schema(range(MAX_SCORE + 1))))


UNREADABLE_SCORE = 0.5
"""Default for a score that could not be parsed."""


@dataclass(frozen=True, slots=True)
class ThoughtScores:
    """Scores of a step.

    Attributes:
        step: Fg.
        notes: Fa; None without notes.
    """

    step: float
    notes: float | None = None


class ThoughtJudge:
    """Scores steps and their notes with a model.

    Args:
        conversation: Renders paths as prompts.

    Attributes:
        unreadable: Number of scores that could not be parsed; each counts as 0.5.
    """

    def __init__(self, model: MeteredModel, conversation: ThoughtPrompts) -> None:
        self.unreadable = 0
        self._model, self._conversation = model, conversation

    @property
    def max_tokens_per_thought(self) -> int:
        """Maximum tokens generated for judging one step."""
        return self._model.profile.quick_thinking_tokens + _TOKENS

    async def judge(self, paths: Sequence[Sequence[PathStep]], *, steps: bool = True) -> list[ThoughtScores]:
        """Score the last step of each path, and its notes; or only the notes.

        Raises:
            BudgetExceeded: The budget does not cover the calls.
            BackendError: The judge failed.
        """
        aspects = [
            (*(["step"] if steps else []), *(["notes"] if self._conversation.has_notes(path) else [])) for path in paths
        ]
        queries = [(i, names) for i, names in enumerate(aspects) if names]
        scores: list[dict[str, float]] = [{} for _ in paths]
        results = await self._written([(paths[i], names) for i, names in queries])
        for (i, requested), values in zip(queries, results, strict=True):
            for aspect, value in zip(requested, values, strict=True):
                self.unreadable += value is None
                scores[i][aspect] = UNREADABLE_SCORE if value is None else value
        return [ThoughtScores(values.get("step", UNREADABLE_SCORE), values.get("notes")) for values in scores]

    async def _written(self, queries: Sequence[tuple[Sequence[PathStep], tuple[str, ...]]]) -> list[list[float | None]]:
        if not queries:
            return []
        capabilities = self._model.quick_capabilities
        requests = []
        for path, aspects in queries:
            schema = scores_schema(aspects) if capabilities.json_schema else None
            prefix = f'{{"{aspects[0]}":' if capabilities.prefix and schema is None else ""
            prompt = self._conversation.after(path, prompts.judge(aspects), prefix=prefix)
            sampling = quick_params(
                self._model, max_tokens=_TOKENS, stop=("}",) if schema is None else (), json_schema=schema
            )
            requests.append(Request(prompt=prompt, sampling=sampling, is_attempt=False))
        results = await self._model.generate(requests)
        report_cut(self._model, [completion for (completion,) in results], "scores")
        return [
            read_scores(str(request.prompt.prefix) + completion.text, aspects)
            if completion.ok
            else [None] * len(aspects)
            for request, (completion,), (_, aspects) in zip(requests, results, queries, strict=True)
        ]
