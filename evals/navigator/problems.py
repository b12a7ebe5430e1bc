"""Which problems a navigator is trained on, and which are held out: halves by the digest of the question's text.

The half follows from the text alone, cleaned of case and blanks: the same question is in the same half whatever dataset
it comes from, in whatever order and however often, and with whatever choices. So no training question is ever held out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...core.errors import UserError
from ...reasoning.rlot.navigator import question_digest
from ..items import Item
from ..task import Task
from .plan import TrainingPlan


@dataclass(frozen=True, slots=True)
class Problem:
    """A question that can be trained on.

    Attributes:
        dataset: Name of its dataset.
        item: The question with its right answer.
        digest: Digest of its text.
    """

    dataset: str
    item: Item
    digest: str

    @property
    def key(self) -> tuple[str, str]:
        """What names it: its dataset and its name there."""
        return self.dataset, self.item.id


@dataclass(frozen=True, slots=True)
class Halves:
    """All problems of a training, cut in two.

    Attributes:
        training: Those that may be trained on.
        held_out: Those that never are.
    """

    training: tuple[Problem, ...]
    held_out: tuple[Problem, ...]


def is_held_out(digest: str, share: float) -> bool:
    """Whether a question is held out; a larger share only adds to those that are.

    Args:
        digest: Digest of its text, hexadecimal and uniformly distributed.
        share: Share of all questions that are, in [0, 1).
    """
    return int(digest[:13], 16) < share * 16**13  # 52 bits: exact in a float


def cut(problems: Iterable[Problem], share: float) -> Halves:
    """Cut problems in two by the digests of their questions."""
    training: list[Problem] = []
    held_out: list[Problem] = []
    for problem in problems:
        (held_out if is_held_out(problem.digest, share) else training).append(problem)
    return Halves(tuple(training), tuple(held_out))


def problems_of(dataset: str, items: Iterable[Item]) -> list[Problem]:
    """The items of a dataset as problems."""
    return [Problem(dataset, item, question_digest(item.question.text)) for item in items]


def halves_of(plan: TrainingPlan, tasks: Sequence[Task]) -> Halves:
    """The problems of a plan, cut in two.

    Raises:
        UserError: A half that is needed is empty; says what to do.
    """
    found = [
        problem
        for task in tasks
        for problem in problems_of(task.use.whole_name, list(task.items.values())[: plan.limit])
    ]
    halves = cut(found, plan.held_out)
    if not halves.training:
        raise UserError(
            f"none of the {len(found)} questions falls into the training half",
            hint="train on more questions, or lower --held-out",
        )
    if plan.validation and not halves.held_out:
        raise UserError(
            f"none of the {len(found)} questions is held out, so there is nothing to validate on",
            hint="train on more questions, raise --held-out, or say --validation 0",
        )
    return halves
