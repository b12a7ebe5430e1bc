"""`ThoughtJudge`: scores thoughts and the notes that came with them, all of a batch in one call.

Fg says how good the step is, Fa how good its notes are (Pan, Deng, Huang 2025, arXiv:2502.02390; how a model is asked
for them is ours). Each is in [0, 1]. The judge reads the path as turns of a conversation and notes as quoted data; it
never sees what an external brain sent, only what was made of it.

e, the score of a node: that of its step and, with small weight, that of what was associated with it.

Reading what the model replied about knowledge and scores: JSON where it is JSON, else whatever can be made out.

JSON schemas of items of knowledge and of scores, for models that can be held to one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...core.errors import UserError
from ...core.json_schema import JsonSchema, enum_schema, object_schema
from ...core.messages import NextTokenDistribution, Prompt, Request, SamplingParams
from ...core.run import Run
from ...serving.metered.model import MeteredModel
from . import prompts
from .prompts import Conversation, Turn

ScoreForm = Literal["normalised", "additive"]


def node_score(step: float, notes: float | None, beta: float, form: ScoreForm = "normalised") -> float:
    """The score e of a node, in [0, 1].

    "normalised" is (Fg + beta Fa) / (1 + beta), and Fg where nothing was associated: so an empty association costs
    nothing and nobody is led to invent one. "additive" is Fg + beta Fa with Fa = 0 where nothing was associated, as
    summaries of the paper have it (Pan, Deng, Huang 2025, arXiv:2502.02390); divided by 1 + beta here, so that it stays
    in [0, 1].

    Args:
        step: Fg, in [0, 1].
        notes: Fa, in [0, 1]; None where nothing was associated.
        beta: Weight of Fa, at least 0.
        form: Which of the two.

    Raises:
        UserError: A number is out of its range.
    """
    if not (0 <= step <= 1 and (notes is None or 0 <= notes <= 1) and beta >= 0):
        raise UserError(
            f"scores {step}, {notes} with weight {beta}", hint="scores are in [0, 1], the weight at least 0"
        )
    if notes is None:
        return step if form == "normalised" else step / (1 + beta)
    return min(1.0, (step + beta * notes) / (1 + beta))


_NUMBER = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,4})?(?![\d.]*\d)")


def read_scores(reply: str, aspects: Sequence[str]) -> list[float | None]:
    """Scores from 0 to 10 as numbers in [0, 1]; clipped.

    Args:
        reply: The reply, JSON or not.
        aspects: What was asked for, in order.

    Returns:
        One for each aspect: what stands behind its name, else the number at its place among all numbers; None where
        there is none.
    """
    named = [_named(reply, aspect) for aspect in aspects]
    if all(score is not None for score in named):
        return named
    numbers = [
        _scaled(float(n)) for n in _NUMBER.findall(re.sub(r"\s*/\s*10\b|\bout of 10\b|\b0\s*-\s*10\b", " ", reply))
    ]
    if any(score is not None for score in named):
        return named
    return [numbers[i] if i < len(numbers) else None for i in range(len(aspects))]


def expected_digit(told: NextTokenDistribution) -> float | None:
    """The mean of the digit that comes next, over 9: in [0, 1]; None if digits have less than half of the mass."""
    mass: dict[int, float] = {}
    for token, logprob in zip(told.tokens, told.logprobs, strict=True):
        digit = token.strip(" \t\n\u2581\u0120")
        if len(digit) == 1 and digit in "0123456789":
            mass[int(digit)] = mass.get(int(digit), 0.0) + math.exp(logprob)
    whole = math.fsum(mass.values())
    if whole < 0.5:
        return None
    return math.fsum(digit * p for digit, p in mass.items()) / whole / 9


def _named(reply: str, aspect: str) -> float | None:
    found = re.search(rf'"?\b{re.escape(aspect)}\b"?\s*[:=]\s*"?(\d{{1,3}}(?:\.\d{{1,4}})?)', reply, re.IGNORECASE)
    return None if found is None else _scaled(float(found[1]))


def _scaled(score: float) -> float:
    return min(1.0, score / 10)


TOP_SCORE = 10


def scores_schema(aspects: Sequence[str]) -> JsonSchema:
    """A score from 0 to 10 for each aspect."""
    return object_schema(dict.fromkeys(aspects, enum_schema(range(TOP_SCORE + 1))))


UNREAD = 0.5
"""What stands for a score that could not be read."""
_LEAST_TOP = 10
_TOP = 20


@dataclass(frozen=True, slots=True)
class Judged:
    """What the judge says.

    Attributes:
        step: Fg.
        notes: Fa; None where there are no notes.
    """

    step: float
    notes: float | None = None


class ThoughtJudge:
    """Asks a model for scores.

    Args:
        model: Who judges.
        conversation: How paths are put.
        run: The run.
        judging: How it is asked; "digits" becomes "merged" for a model that cannot show what comes next.
        tokens: Most tokens of a reply.

    Attributes:
        unread: Scores that could not be read; each counts as 0.5.
    """

    def __init__(
        self, model: MeteredModel, conversation: Conversation, run: Run, judging: Judging, tokens: int
    ) -> None:
        self.unread = 0
        self._model, self._conversation, self._tokens = model, conversation, tokens
        self._judging = judging
        if judging == "digits" and model.capabilities.top_logprobs < _LEAST_TOP:
            run.degrade(f"{model.name} does not show the digit that comes next; it was asked to write its scores")
            self._judging = "merged"

    def most_tokens(self, *, notes: bool) -> int:
        """Most tokens that judging one thought generates."""
        if self._judging == "digits":
            return 0
        return self._tokens * (2 if notes and self._judging == "separate" else 1)

    async def judge(self, paths: Sequence[Sequence[Turn]], *, steps: bool = True) -> list[Judged]:
        """Score the last thought of each path, and its notes.

        Args:
            paths: The paths.
            steps: Whether the steps are to be scored, or something else does that.

        Raises:
            LimitExceeded: The calls do not fit the budget.
            BackendError: The judge failed.
        """
        aspects = [
            [*(["step"] if steps else []), *(["notes"] if self._conversation.has_notes(path) else [])] for path in paths
        ]
        if self._judging == "merged":
            asked = [(i, tuple(wanted)) for i, wanted in enumerate(aspects) if wanted]
        else:
            asked = [(i, (aspect,)) for i, wanted in enumerate(aspects) for aspect in wanted]
        scores: list[dict[str, float]] = [{} for _ in paths]
        told = await (self._digits if self._judging == "digits" else self._written)([(paths[i], a) for i, a in asked])
        for (i, wanted), values in zip(asked, told, strict=True):
            for aspect, value in zip(wanted, values, strict=True):
                self.unread += value is None
                scores[i][aspect] = UNREAD if value is None else value
        return [Judged(said.get("step", UNREAD), said.get("notes")) for said in scores]

    async def _written(self, asked: Sequence[tuple[Sequence[Turn], tuple[str, ...]]]) -> list[list[float | None]]:
        if not asked:
            return []
        can = self._model.capabilities
        requests = []
        for path, aspects in asked:
            schema = scores_schema(aspects) if can.json_schema else None
            prefix = f'{{"{aspects[0]}":' if can.prefix and schema is None else ""
            prompt = self._conversation.after(path, prompts.judge(aspects), prefix=prefix)
            sampling = SamplingParams(
                temperature=0.0,
                max_tokens=self._tokens,
                stop=("}",) if schema is None else (),
                logprobs=False,
                json_schema=schema,
            )
            requests.append(Request(prompt=prompt, sampling=sampling))
        replies = await self._model.generate(requests)
        return [
            read_scores(str(request.prompt.prefix) + reply.text, aspects) if reply.ok else [None] * len(aspects)
            for request, (reply,), (_, aspects) in zip(requests, replies, asked, strict=True)
        ]

    async def _digits(self, asked: Sequence[tuple[Sequence[Turn], tuple[str, ...]]]) -> list[list[float | None]]:
        if not asked:
            return []
        begins = "Score: " if self._model.capabilities.prefix else ""
        requests: list[Prompt] = [
            self._conversation.after(path, prompts.judge_digit(aspects[0]), prefix=begins) for path, aspects in asked
        ]
        top = min(_TOP, self._model.capabilities.top_logprobs)
        return [[expected_digit(told)] for told in await self._model.next_token(requests, top)]


Judging = Literal["merged", "separate", "digits"]
