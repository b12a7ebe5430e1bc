"""A pass of workers in tokens: what each of them reads, and how long what they see becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..core.errors import ContextTooLong, UserError
from ..core.messages import Usage
from .workers import Layout, Opening, Pass


def tokens_of(
    step: Pass, opening: Opening, encode: Callable[[str], list[int]], check: Callable[[Sequence[int]], None]
) -> list[list[int]]:
    """Tokens that each worker reads; none of one that stands still.

    Args:
        step: The pass.
        opening: How the group began.
        encode: Tokens of a text.
        check: Raises `UserError` for tokens that the model has not.

    Raises:
        UserError: The pass is none of this group's, or somebody reads nothing, or nobody anything.
    """
    if len(step.feeds) != opening.workers:
        raise UserError(f"a pass for {len(step.feeds)} workers, of {opening.workers}", hint="give each its tokens")
    if not any(step.feeds):
        raise UserError("a pass in which nobody reads", hint="give one worker something at least")
    if any(not 0 <= w < opening.workers for w in step.moves) or len(set(step.moves)) < len(step.moves):
        raise UserError(f"moves of workers {step.moves}", hint=f"workers are 0 to {opening.workers - 1}, each once")
    if step.moves and opening.layout == "contiguous":
        raise UserError("nothing is moved in a contiguous layout", hint="choose combined or interleaved")
    read: list[list[int]] = []
    for worker, fed in enumerate(step.feeds):
        ids = [] if fed is None or fed.token is None else [fed.token]
        ids += encode(fed.text) if fed is not None and fed.text else []
        if fed is not None and not ids:
            raise UserError(f"worker {worker} reads nothing", hint="give it a token or a text, or let it stand still")
        check(ids)
        read.append(ids)
    return read


@dataclass(frozen=True)
class Lengths:
    """Tokens of what there is to see.

    Attributes:
        layout: What workers see of it.
        history: What all see first.
        headers: Both headers.
        steps: What each worker has written and was not moved.
    """

    layout: Layout
    history: int
    headers: int
    steps: tuple[int, ...]

    def after(self, read: Sequence[int], moves: Sequence[int], context: int) -> Lengths:
        """The lengths behind a pass.

        Args:
            read: Tokens that each worker reads.
            moves: Workers whose text joins the history before it.
            context: Most tokens that a worker may see.

        Raises:
            ContextTooLong: One that reads would see more.
        """
        history = self.history + sum(self.steps[w] for w in moves)
        kept = (0 if worker in moves else length for worker, length in enumerate(self.steps))
        steps = tuple(length + more for length, more in zip(kept, read, strict=True))
        shown = (
            [n for n, more in zip(steps, read, strict=True) if more] if self.layout == "interleaved" else [sum(steps)]
        )
        longest = history + max(shown) + (0 if self.layout == "interleaved" else self.headers)
        if longest > context:
            raise ContextTooLong(
                f"a worker would see {longest} tokens, more than the model's context of {context}",
                tokens=longest,
                limit=context,
                hint="fewer passes, fewer workers, or a model with a longer context",
            )
        return replace(self, history=history, steps=steps)


class Tally:
    """Tokens of a group so far.

    Args:
        workers: How many there are.
        prompt_tokens: Tokens of the prompt and the headers.

    Attributes:
        last: What each worker drew last.
    """

    def __init__(self, workers: int, prompt_tokens: int) -> None:
        self._given, self._drawn = prompt_tokens, 0
        self.last: list[int | None] = [None] * workers

    def take(self, worker: int, ids: Sequence[int], token: int) -> None:
        """A worker has read `ids`, the first of which may be its own, and drawn a token."""
        self._given += len(ids) - (ids[0] == self.last[worker])
        self._drawn += 1
        self.last[worker] = token

    @property
    def usage(self) -> Usage:
        """Tokens that they have read beside their own, and drawn."""
        return Usage(prompt_tokens=self._given, completion_tokens=self._drawn)


def header_tokens(opening: Opening, encode: Callable[[str], list[int]]) -> tuple[list[int], list[int]]:
    """Tokens of the header before the others' texts and of the one before one's own; none where it is not seen."""
    sees_others = opening.workers > 1 and opening.layout != "interleaved"
    others = encode(opening.others) if sees_others and opening.layout == "combined" else []
    return others, encode(opening.own) if sees_others else []
