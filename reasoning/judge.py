"""`AnswerJudge`: a model that rates answers to one question, by the distribution of its verdict.

A rating is the mean of the marks 1 to 9 under their probabilities. Answers are quoted as data and anonymous.

Source: Liu et al., "G-Eval" (EMNLP 2023, arXiv:2303.16634), section 2. The prompt is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from ..core.concurrency import paced
from ..core.errors import BudgetExceeded
from ..core.messages import Frozen, Prompt
from ..core.run import Run
from ..core.types import Question, Stopped
from ..serving.metered.model import MeteredModel
from ..serving.profiles.profile import quick_sampling
from ..serving.verdict_distribution import VERDICT_TOKENS, VerdictDistribution, read_verdicts
from .anonymity import MATERIAL_NOTICE, make_blinding, show_answers
from .answers.normalization import visible_text
from .prompts import fit_prompt, question_prompt

MARKS: Final = tuple("123456789")
"""Marks of a rating, each one token of any tokenizer."""
MARK_VALUES: Final = tuple((int(mark) - 1) / 8 for mark in MARKS)
"""Their values, from 0 to 1."""
NO_ANSWER: Final = "(no answer)"


class Rating(Frozen):
    """A rating of one answer.

    Attributes:
        value: Mean mark, from 0 (the lowest) to 1.
        standard_error: Its standard error; 0 where the distribution was read.
        off_scale: Probability that the verdict is no mark.
    """

    value: float
    standard_error: float
    off_scale: float


class AnswerJudge:
    """Rates answers to one question.

    Model calls: 1 for each rating, all of one method's call in one batch. They are quick calls; see `read_verdicts`.

    Args:
        model: The judge; preferably not the model that wrote the answers.

    Attributes:
        stopped: "budget" once the budget did not cover all that was requested.
    """

    def __init__(self, model: MeteredModel, question: Question, run: Run) -> None:
        self.stopped: Stopped = "done"
        self._model, self._question, self._run = model, question, run

    async def rate(self, answers: Sequence[str]) -> list[Rating | None]:
        """Rate answers; None for one without a readable verdict, or beyond the budget.

        Raises:
            BackendError: Every request failed.
        """
        left = self._run.ledger.remaining("calls")
        count = len(answers) if left == math.inf else min(len(answers), int(left))
        if count < len(answers):
            self._stop(self._run.ledger.exceeded("calls"))
        fitted = [await self._fitted(text) async for text in paced(answers[:count])]
        prompts = [prompt for prompt in fitted if prompt is not None]
        try:
            read = iter(await read_verdicts(self._model, prompts, MARKS) if prompts else ())
        except BudgetExceeded as e:
            self._stop(e)
            return [None] * len(answers)
        ratings = [None if prompt is None else _rating(next(read)) for prompt in fitted]
        return [*ratings, *[None] * (len(answers) - count)]

    async def _fitted(self, answer: str) -> Prompt | None:
        """The prompt about an answer, which is truncated if it does not fit."""
        bare = visible_text(answer).text.strip() or NO_ANSWER
        sampling = quick_sampling(self._model.profile, max_tokens=VERDICT_TOKENS)
        prompt, max_chars = await fit_prompt(self._model, self._run, self.prompt, [bare], sampling)
        if max_chars is not None:
            self._run.degrade(
                f"the answers do not fit the context of {self._model.name}: it saw them without their middle"
            )
        return prompt

    def prompt(self, texts: Sequence[str]) -> Prompt:
        """The prompt about an answer, the only one of the texts."""
        blind = make_blinding((0,), self._question, 0, shuffle=False)
        return question_prompt(
            self._question,
            f"Rate the answer to this question quoted below. {MATERIAL_NOTICE}\n\n"
            f"{show_answers(blind, dict(enumerate(texts)))}\n\n"
            "Judge correctness first, then completeness and clarity. Ignore length. "
            f"Reply with a single digit from {MARKS[0]} (wrong or useless) to {MARKS[-1]} (correct, complete and "
            "clear).",
            # a digit has no token with a blank before it in most vocabularies
            prefix="Score: " if self._model.capabilities.prefix else "",
        )

    def _stop(self, error: BudgetExceeded) -> None:
        self._run.record_limit(error)
        self.stopped = "budget"


def _rating(verdict: VerdictDistribution | None) -> Rating | None:
    if verdict is None or not verdict.is_readable:
        return None
    return Rating(
        value=verdict.expected(MARK_VALUES),
        standard_error=verdict.standard_error(MARK_VALUES),
        off_scale=verdict.off_scale,
    )
