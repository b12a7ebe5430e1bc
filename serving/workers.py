"""`WorkerGroup`: workers of one model that read one another's cache while they write, pass by pass.

A pass reads the next tokens of every worker, whose keys and values are written before anybody attends, and draws one
token for each. What a worker has finished may be moved into the history that all of them share.

Source: Rodionov et al. 2025, "Hogwild! Inference: Parallel LLM Generation via Concurrent Attention", arXiv:2504.06261.
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol, runtime_checkable

from pydantic import Field

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
