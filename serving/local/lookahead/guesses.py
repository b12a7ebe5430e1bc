"""`Guesses`: the tree of tokens that is computed beside a row's own in one step, and what becomes of its columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..forward import Forward
from ..kvlog import whole_lanes
from ..plans import Span
from ..prefixes import Sequenced
from .trie import Draft

if TYPE_CHECKING:
    from ..sample_task import Row


@dataclass(eq=False)
class Guesses:
    """What is guessed of a row in this step, and how far it was right.

    Attributes:
        row: The row.
        draft: The guesses.
        span: Their place in the step; None if there is no room for them.
        accepted: Guesses that were chosen and gone on from, in order.
    """

    row: Row
    draft: Draft
    span: Span | None = None
    accepted: list[int] = field(default_factory=list)

    def child(self, at: int, token: int) -> int | None:
        """The guess of a token below another one, or below the row's last token (-1)."""
        tokens, parents = self.draft.tokens, self.draft.parents
        return next((i for i in range(at + 1, len(tokens)) if parents[i] == at and tokens[i] == token), None)


def settle(guesses: Sequence[Guesses]) -> None:
    """Give the columns of right guesses to their rows, and take back the others."""
    of_log: dict[int, list[Guesses]] = {}
    for guess in guesses:
        of_log.setdefault(id(placed(guess.row).tree.log), []).append(guess)
    for some in of_log.values():
        log = placed(some[0].row).tree.log
        count = sum(len(guess.draft) for guess in some)
        first, kept = log.used - count, []
        for guess in some:
            kept += [first + node for node in guess.accepted]
            first += len(guess.draft)
        settled = log.settle(count, kept)
        for guess in some:
            if guess.accepted:
                columns, settled = settled[: len(guess.accepted)], settled[len(guess.accepted) :]
                sequence = placed(guess.row)
                log.show(sequence.branch, columns)
                sequence.record([guess.draft.tokens[node] for node in guess.accepted])


def steady(rows: Sequence[Row], forward: Forward) -> list[int]:
    """For each row how many guesses, of one path, may stand beside it without moving a bit.

    Other samples of its call may stand in its log, now or later, and then the order of all their columns would be
    another one. That moves logits by about 1e-6 in fp32. In bf16, of 18 samples of SmolLM2-135M in logs of under 350
    columns 9 changed. And not every forward function gives a token the same bits whatever stands beside it.

    Attention multiplies as many columns as the step has, in whole groups, and another number of groups may be another
    order of summing: of 10 texts of SmolLM2-135M in bf16 with steps that reached into the next group 5 moved. So the
    guesses end with the group in which the row's own token stands.
    """
    ends = []
    for row in rows:
        columns = placed(row).tree.log.used + 1
        ends.append(whole_lanes(columns) - columns if forward.steady and row.task.alone else 0)
    return ends


def placed(row: Row) -> Sequenced:
    """Where a row under way lives."""
    if row.sequence is None:
        raise RuntimeError("a row under way has a sequence")
    return row.sequence
