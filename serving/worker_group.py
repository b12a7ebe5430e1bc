"""`WorkerGroup`: workers of one model that read one another's cache while they write, pass by pass.

A pass reads the next tokens of every worker, whose keys and values are written before anybody attends, and draws one
token for each. What a worker has finished may be moved into the history that all of them share.

Source: Rodionov et al. 2025, "Hogwild! Inference: Parallel LLM Generation via Concurrent Attention", arXiv:2504.06261.

A pass of workers in tokens: what each of them reads, and how long what they see becomes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Protocol, runtime_checkable

from pydantic import Field

from ..core.errors import ContextTooLong, UserError
from ..core.messages import Frozen, Prompt, Usage

Layout = Literal["combined", "interleaved", "contiguous"]
"""What a worker sees, in this order:

- "combined": the history, a header, the others' unfinished texts, a header, its own unfinished text;
- "interleaved": the history, its own unfinished text;
- "contiguous": the prompt, the others' texts, a header, its own text; nothing is ever moved.
"""

MOST_WORKERS = 8
"""Most workers of a group."""


class Opening(Frozen):
    """How a group of workers begins.

    Attributes:
        prompt: What all of them read first; the history begins with it.
        workers: How many there are. One alone sees the history and its own text, without headers.
        layout: What they see of one another.
        others: Header before the others' texts; read as if nothing stood before it. Only a combined layout has it.
        own: Header before one's own text; likewise. An interleaved layout has none.
        temperature: 0 is greedy.
        top_p: Nucleus mass in (0, 1].
        top_k: Number of most likely tokens kept; 0 keeps all.
        seed: Seed; each worker draws from a generator of its own made of (seed, its number).
        banned: Texts; a token whose text holds one of them is never drawn.
    """

    prompt: Prompt
    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS)] = 2
    layout: Layout = "combined"
    others: str = ""
    own: str = ""
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    seed: int = 0
    banned: tuple[str, ...] = ()


class Fed(Frozen):
    """What a worker reads in a pass: at least one token.

    Attributes:
        token: The token that it drew last, or another one; None for none.
        text: What it is given to read behind it.
    """

    token: int | None = None
    text: str = ""


class Pass(Frozen):
    """One pass.

    Attributes:
        feeds: What each worker reads; None for one that stands still.
        moves: Workers whose text joins the history before the pass, in this order.
    """

    feeds: tuple[Fed | None, ...]
    moves: tuple[int, ...] = ()


class Drawn(Frozen):
    """A token that was drawn.

    Attributes:
        token: Its id.
        logprob: Its raw log-probability, in nats.
        text: The text that is certain with it: empty within a character.
        ends: Whether it is one that ends a text.
        read: Tokens that the worker read in the pass.
    """

    token: int
    logprob: float
    text: str = ""
    ends: bool = False
    read: int = 1


@runtime_checkable
class WorkerGroup(Protocol):
    """Workers under way.

    Attributes:
        workers: How many there are.
        usage: Prompt tokens (prompt, headers and what workers were given to read) and drawn tokens so far.
    """

    @property
    def workers(self) -> int:
        """How many there are."""

    @property
    def usage(self) -> Usage:
        """What they have read and drawn so far."""

    async def advance(self, step: Pass) -> list[Drawn | None]:
        """One pass.

        Args:
            step: What each worker reads; as many feeds as workers, one of them at least.

        Returns:
            For each worker the token that it draws; None for one that stands still.

        Raises:
            UserError: The pass is none of this group's: another number of workers, or somebody reads nothing, or
                nobody anything. Nothing was done.
            ContextTooLong: What a worker sees would be longer than the model's context. As after all that follow, and
                after a cancellation, the group is closed.
            BackendError: The pass failed, or the cache is full.
        """

    async def aclose(self) -> None:
        """Free what they hold; idempotent."""


@runtime_checkable
class SharesCache(Protocol):
    """A model whose `capabilities.kv_sharing` may hold."""

    async def open_workers(self, opening: Opening) -> WorkerGroup:
        """Begin a group: the prompt and the headers are read.

        Raises:
            CapabilityMissing: The model's workers cannot read one another's cache.
            ContextTooLong: The prompt does not fit.
            BackendError: It could not be read.
        """


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
