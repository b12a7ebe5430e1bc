"""Scores of prefixes by what becomes of them: they are finished some times over.

Source: the idea of scoring a step by rollouts is that of Wang et al., "Math-Shepherd" (ACL 2024, arXiv:2312.08935),
section 3.3. Differs: there the right answer is known; here the answer that most rollouts reach stands for it, or a
given scorer judges each finished reply.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from ..core.answer import Candidate
from ..core.question import Question
from ..core.run import Run
from ..serving.rewards import Aggregation
from .answer_classes import AnswerLabels
from .equivalence import Equivalence
from .reply_prefix import Prefix
from .rollouts import Finisher
from .step_rewards import Remembering

Scorer = Callable[[Candidate], float]
"""Judges a finished reply: a number in [0, 1]."""


class ByRollouts(Remembering):
    """The share of a prefix's rollouts that reach the answer of the majority.

    The majority is that of all rollouts of the run so far, those of this call included; of equals, the answer reached
    first. A rollout without an answer agrees with nobody. A prefix that has ended is its own only rollout. What is once
    scored keeps its score, though the majority may move. The aggregation means nothing here, since a prefix has one
    value.

    Args:
        finisher: Finishes prefixes.
        question: What is answered.
        run: The run that pays.
        times: Rollouts of each prefix.
        scorer: Judges each finished reply in place of the majority; a prefix's score is then the mean.
        delimiter: Between the steps of a prefix that is given as texts alone.
    """

    def __init__(
        self,
        finisher: Finisher,
        question: Question,
        run: Run,
        *,
        times: int = 4,
        scorer: Scorer | None = None,
        delimiter: str = "\n\n",
    ) -> None:
        by = "agreement with the majority of" if scorer is None else "a scorer of"
        super().__init__(f"{by} rollouts, {times} each", run)
        self._finisher, self._times, self._scorer, self._delimiter = finisher, times, scorer, delimiter
        self._labels = AnswerLabels(question)
        self._counts: Counter[int] = Counter()
        self.tokens = 0
        """Tokens that the rollouts took."""

    async def _score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation
    ) -> Mapping[int, float | None]:
        begun = [p if isinstance(p, Prefix) else Prefix.of_steps(p, self._delimiter) for p in prefixes]
        made = await self._finisher.finish(begun, self._times)
        self.tokens += made.tokens
        self.spent = self.spent or made.spent
        covered = {i: f for i, f in enumerate(made.finished) if f.candidates or not f.unasked}
        self.passes += len(covered)
        if self._scorer is not None:
            scorer = self._scorer
            judged = {i: [scorer(c) for c in f.candidates] for i, f in covered.items()}
            return {i: math.fsum(values) / len(values) if values else None for i, values in judged.items()}
        async with Equivalence() as equivalence:
            labels = {
                i: [await self._labels.label(c.answer, equivalence) for c in f.candidates] for i, f in covered.items()
            }
        self._counts.update(label for found in labels.values() for label in found if label is not None)
        most = max(sorted(self._counts), key=self._counts.__getitem__, default=None)
        return {
            i: sum(label is not None and label == most for label in found) / len(found) if found else None
            for i, found in labels.items()
        }
