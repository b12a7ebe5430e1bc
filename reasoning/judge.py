"""`AnswerJudge`: a model that rates answers to one question, or compares two of them, by distributions of its verdict.

A rating is the mean of the marks 1 to 9 under their probabilities. A comparison is the probability that one of two
answers is the better one, as the mean of both orders of the two: a preference for the answer that is shown first, or
for a letter, cancels out, and is reported. Answers are quoted as data and anonymous.

Source: ratings: Liu et al., "G-Eval" (EMNLP 2023, arXiv:2303.16634), section 2. Comparisons in both orders: Zheng et
al., "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena" (2023, arXiv:2306.05685), section 3.4; there a verdict
that changes with the order is a tie, here the probabilities of both orders are averaged. The prompts are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Self

from pydantic import JsonValue

from ..core.concurrency import paced
from ..core.errors import BudgetExceeded
from ..core.messages import Frozen, Prompt
from ..core.run import Run
from ..core.types import Question, Stopped
from ..serving.metered.model import MeteredModel
from ..serving.profiles.profile import quick_sampling
from ..serving.verdict_distribution import VERDICT_TOKENS, VerdictDistribution, read_verdicts
from .anonymity import MATERIAL_NOTICE, Blinding, make_blinding, show_answers
from .answers.normalization import visible_text
from .prompts import fit_prompt, question_prompt

MARKS: Final = tuple("123456789")
"""Marks of a rating, each one token of any tokenizer."""
MARK_VALUES: Final = tuple((int(mark) - 1) / 8 for mark in MARKS)
"""Their values, from 0 to 1."""
FIRST_WINS: Final = (1.0, 0.0)
"""Values of the two letters of a comparison: 1 for the answer that is shown first."""
NO_ANSWER: Final = "(no answer)"

_TASK = "Judge correctness first, then completeness and clarity. Ignore length."


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


class Comparison(Frozen):
    """A comparison of two answers, by position.

    Attributes:
        margin: Probability that the first is better, less 1/2: in [-1/2, 1/2], and the negative of what the reverse
            comparison has.
        standard_error: Its standard error; 0 where distributions were read.
        position_bias: Probability that the answer shown first wins, less 1/2, as the mean of both orders.
        off_scale: Probability that the verdict is none of the two letters, the larger one of both orders.
    """

    first: int
    second: int
    margin: float
    standard_error: float = 0.0
    position_bias: float = 0.0
    off_scale: float = 0.0

    @property
    def win(self) -> float:
        """Probability that the first is better."""
        return 0.5 + self.margin

    @property
    def is_flipped(self) -> bool:
        """Whether the verdict changes with the order: the same position wins in both."""
        return abs(self.position_bias) > abs(self.margin)

    @classmethod
    def of_orders(cls, first: int, second: int, forward: VerdictDistribution, backward: VerdictDistribution) -> Self:
        """Average the verdicts of both orders.

        Args:
            forward: The verdict with the first answer shown first; its labels are those of the answers shown first and
                second.
            backward: The same with the second answer shown first.
        """
        shown_first = [verdict.expected(FIRST_WINS) for verdict in (forward, backward)]
        errors = [verdict.standard_error(FIRST_WINS) for verdict in (forward, backward)]
        return cls(
            first=first,
            second=second,
            margin=(shown_first[0] - shown_first[1]) / 2,
            standard_error=math.hypot(*errors) / 2,
            position_bias=(shown_first[0] + shown_first[1]) / 2 - 0.5,
            off_scale=max(forward.off_scale, backward.off_scale),
        )


class AnswerJudge:
    """Judges answers to one question.

    Model calls: 1 for each rating, 2 for each comparison, all of one method's call in one batch. They are quick calls;
    see `read_verdicts`.

    Args:
        model: The judge; preferably not the model that wrote the answers.
        max_calls: Maximum model calls that it makes, within the run's budget.

    Attributes:
        stopped: "budget" once the budget did not cover all that was requested.
        comparisons: The comparisons so far.
        unreadable: Number of ratings and comparisons whose verdicts were off the scale.
    """

    def __init__(self, model: MeteredModel, question: Question, run: Run, *, max_calls: float = math.inf) -> None:
        self.stopped: Stopped = "done"
        self.comparisons: list[Comparison] = []
        self.unreadable = 0
        self._model, self._question, self._run = model, question, run
        self._calls_left = max_calls
        self.letters = make_blinding((0, 1), question, 0, shuffle=False).letters

    async def rate(self, answers: Sequence[str]) -> list[Rating | None]:
        """Rate answers; None for one without a readable verdict, or beyond the budget.

        Raises:
            BackendError: Every request failed.
        """
        verdicts = await self._verdicts([[answer] for answer in answers], MARKS, per_item=1)
        return [
            None
            if verdict is None
            else Rating(
                value=verdict.expected(MARK_VALUES),
                standard_error=verdict.standard_error(MARK_VALUES),
                off_scale=verdict.off_scale,
            )
            for verdict in verdicts
        ]

    async def compare(self, answers: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[Comparison | None]:
        """Compare pairs of answers, by position; None for one without a readable verdict, or beyond the budget.

        Raises:
            BackendError: Every request failed.
        """
        shown = [[answers[i] for i in order] for a, b in pairs for order in ((a, b), (b, a))]
        verdicts = await self._verdicts(shown, self.letters, per_item=2)
        results: list[Comparison | None] = []
        for (a, b), forward, backward in zip(pairs, verdicts[::2], verdicts[1::2], strict=True):
            read = None
            if forward is not None and backward is not None:
                read = Comparison.of_orders(a, b, forward, backward)
                self.comparisons.append(read)
            results.append(read)
        return results

    @property
    def position_bias(self) -> float:
        """That of the comparisons so far, as a mean; 0 without any."""
        return math.fsum(c.position_bias for c in self.comparisons) / max(1, len(self.comparisons))

    def notes(self) -> dict[str, JsonValue]:
        """The comparisons so far in figures, for the trace and the solution."""
        return {
            "comparisons": len(self.comparisons),
            "unreadable": self.unreadable,
            "position_bias": self.position_bias,
            "flipped": sum(c.is_flipped for c in self.comparisons),
            "off_scale": max((c.off_scale for c in self.comparisons), default=0.0),
            "standard_error": max((c.standard_error for c in self.comparisons), default=0.0),
        }

    async def _verdicts(
        self, shown: Sequence[Sequence[str]], labels: Sequence[str], *, per_item: int
    ) -> list[VerdictDistribution | None]:
        """Readable verdicts on what is shown, `per_item` for each requested item; those beyond the budget are None."""
        left = min(self._run.ledger.remaining("calls"), self._calls_left)
        count = len(shown) if left == math.inf else min(len(shown), int(left) // per_item * per_item)
        if count < len(shown):
            self._stop(self._run.ledger.exceeded("calls"))
        fitted = [await self._prompt(texts) async for texts in paced(shown[:count])]
        prompts = [prompt for prompt in fitted if prompt is not None]
        self._calls_left -= len(prompts)
        try:
            read = iter(await read_verdicts(self._model, prompts, labels) if prompts else ())
        except BudgetExceeded as e:
            self._stop(e)
            return [None] * len(shown)
        verdicts = [None if prompt is None else next(read) for prompt in fitted]
        readable = [verdict if verdict is not None and verdict.is_readable else None for verdict in verdicts]
        self.unreadable += sum(
            any(verdict is None for verdict in readable[i : i + per_item]) for i in range(0, count, per_item)
        )
        return [*readable, *[None] * (len(shown) - count)]

    async def _prompt(self, texts: Sequence[str]) -> Prompt | None:
        """The prompt about one or two answers, which are truncated if they do not fit."""
        bare = [visible_text(text).text.strip() or NO_ANSWER for text in texts]
        sampling = quick_sampling(self._model.profile, max_tokens=VERDICT_TOKENS)
        prompt, max_chars = await fit_prompt(self._model, self._run, self._make_prompt, bare, sampling)
        if max_chars is not None:
            self._run.degrade(
                f"the answers do not fit the context of {self._model.name}: it saw them without their middle"
            )
        return prompt

    def _make_prompt(self, texts: Sequence[str]) -> Prompt:
        can_continue = self._model.capabilities.prefix
        blind = Blinding(self.letters[: len(texts)], tuple(range(len(texts))))
        answers = f"{MATERIAL_NOTICE}\n\n{show_answers(blind, dict(enumerate(texts)))}\n\n{_TASK}"
        if len(texts) == 1:
            return question_prompt(
                self._question,
                f"Rate the answer to this question quoted below. {answers} "
                f"Reply with a single digit from {MARKS[0]} (wrong or useless) to {MARKS[-1]} (correct, complete and "
                "clear).",
                # a digit has no token with a blank before it in most vocabularies, a letter has
                prefix="Score: " if can_continue else "",
            )
        first, second = self.letters
        return question_prompt(
            self._question,
            f"Compare the two answers to this question quoted below. {answers} "
            f"Which answer is better? Reply with a single letter: {first} or {second}.",
            prefix="Answer:" if can_continue else "",
        )

    def _stop(self, error: BudgetExceeded) -> None:
        self._run.record_limit(error)
        self.stopped = "budget"
