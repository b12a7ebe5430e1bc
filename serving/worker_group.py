"""`WorkerGroup`: workers of one model that read one another's KV cache while they write, pass by pass.

A pass reads the next tokens of every worker, whose keys and values are written before any worker attends, and samples
one token for each. What a worker has finished may be moved to the history that all of them share.

Source: Rodionov et al. 2025, "Hogwild! Inference: Parallel LLM Generation via Concurrent Attention", arXiv:2504.06261.
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

MAX_WORKERS = 8
"""Maximum workers of a group."""


class WorkerGroupConfig(Frozen):
    """How a group of workers starts.

    Attributes:
        prompt: What all of them read first; the history begins with it.
        num_workers: Number of workers. A single one sees the history and its own text, without headers.
        layout: What they see of one another.
        others_header: Header before the others' texts; read as if nothing preceded it. Only a combined layout has it.
        own_header: Header before a worker's own text; likewise. An interleaved layout has none.
        temperature: 0 is greedy.
        top_p: Nucleus mass in (0, 1].
        top_k: Number of most likely tokens kept; 0 keeps all.
        seed: Seed; each worker samples with a generator of (seed, its number).
        banned_texts: A token whose text contains one of them is never sampled.
    """

    prompt: Prompt
    num_workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 2
    layout: Layout = "combined"
    others_header: str = ""
    own_header: str = ""
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    seed: int = 0
    banned_texts: tuple[str, ...] = ()


class WorkerInput(Frozen):
    """What a worker reads in a pass: at least one token.

    Attributes:
        token: The token that it sampled last, or another one; None for none.
        text: Text that follows it.
    """

    token: int | None = None
    text: str = ""


class GroupStep(Frozen):
    """One pass.

    Attributes:
        inputs: What each worker reads; None for an idle one.
        moves: Workers whose text moves to the history before the pass, in this order.
    """

    inputs: tuple[WorkerInput | None, ...]
    moves: tuple[int, ...] = ()


class WorkerToken(Frozen):
    """A sampled token.

    Attributes:
        token: Its id.
        logprob: Its raw log-probability, in nats.
        text: The text that is certain with it: empty within a character.
        is_eos: Whether it ends a text.
        num_read: Tokens that the worker read in the pass.
    """

    token: int
    logprob: float
    text: str = ""
    is_eos: bool = False
    num_read: int = 1


@runtime_checkable
class WorkerGroup(Protocol):
    """Running workers."""

    @property
    def num_workers(self) -> int:
        """Number of workers."""

    @property
    def usage(self) -> Usage:
        """Prompt tokens (prompt, headers and workers' inputs) and sampled tokens so far."""

    async def advance(self, step: GroupStep) -> list[WorkerToken | None]:
        """One pass.

        Args:
            step: As many inputs as workers, at least one of which reads.

        Returns:
            For each worker the token that it samples; None for an idle one.

        Raises:
            UserError: The pass does not fit the group: another number of workers, an empty input, or no input at all.
                Nothing was done.
            ContextTooLong: A worker's view would exceed the model's context. After this and the following errors, and
                after a cancellation, the group is closed.
            BackendError: The pass failed, or the cache is full.
        """

    async def aclose(self) -> None:
        """Free their memory; idempotent."""


@runtime_checkable
class SupportsWorkers(Protocol):
    """A model whose `capabilities.kv_sharing` may be true."""

    async def start_workers(self, config: WorkerGroupConfig) -> WorkerGroup:
        """Start a group: the prompt and the headers are prefilled.

        Raises:
            CapabilityMissing: The model's workers cannot read one another's cache.
            ContextTooLong: The prompt does not fit.
            BackendError: It could not be prefilled.
        """


def input_ids(
    step: GroupStep,
    config: WorkerGroupConfig,
    encode: Callable[[str], list[int]],
    check: Callable[[Sequence[int]], None],
) -> list[list[int]]:
    """Tokens that each worker reads; none of an idle one.

    Args:
        check: Raises `UserError` for tokens that are not in the model's vocabulary.

    Raises:
        UserError: The pass does not fit the group (see `WorkerGroup.advance`).
    """
    num_workers = config.num_workers
    if len(step.inputs) != num_workers:
        raise UserError(f"a pass for {len(step.inputs)} workers, of {num_workers}", hint="give one input per worker")
    if not any(step.inputs):
        raise UserError("a pass in which no worker reads", hint="give at least one worker a token or a text")
    if any(not 0 <= w < num_workers for w in step.moves) or len(set(step.moves)) < len(step.moves):
        raise UserError(f"moves of workers {step.moves}", hint=f"workers are 0 to {num_workers - 1}, each once")
    if step.moves and config.layout == "contiguous":
        raise UserError("a contiguous layout has no moves", hint="choose combined or interleaved")
    inputs: list[list[int]] = []
    for worker, entry in enumerate(step.inputs):
        ids = [] if entry is None or entry.token is None else [entry.token]
        ids += encode(entry.text) if entry is not None and entry.text else []
        if entry is not None and not ids:
            raise UserError(f"worker {worker} reads nothing", hint="give it a token or a text, or None to keep it idle")
        check(ids)
        inputs.append(ids)
    return inputs


def header_ids(config: WorkerGroupConfig, encode: Callable[[str], list[int]]) -> tuple[list[int], list[int]]:
    """Tokens of the header before the others' texts and of the one before a worker's own; none where not visible."""
    sees_others = config.num_workers > 1 and config.layout != "interleaved"
    others = encode(config.others_header) if sees_others and config.layout == "combined" else []
    return others, encode(config.own_header) if sees_others else []


@dataclass(frozen=True)
class ViewLengths:
    """Tokens of the parts of the workers' views.

    Attributes:
        layout: What workers see of it.
        history: What all see first.
        headers: Both headers.
        own: What each worker has written and was not moved.
    """

    layout: Layout
    history: int
    headers: int
    own: tuple[int, ...]

    def after(self, read: Sequence[int], moves: Sequence[int], context: int) -> ViewLengths:
        """The lengths after a pass.

        Args:
            moves: Workers whose text moves to the history before it.

        Raises:
            ContextTooLong: The view of a worker that reads would exceed it.
        """
        history = self.history + sum(self.own[w] for w in moves)
        kept = (0 if worker in moves else length for worker, length in enumerate(self.own))
        own = tuple(length + more for length, more in zip(kept, read, strict=True))
        if self.layout == "interleaved":
            longest = history + max(n for n, more in zip(own, read, strict=True) if more)
        else:
            longest = history + self.headers + sum(own)
        if longest > context:
            raise ContextTooLong(
                f"a worker would see {longest} tokens, more than the model's context of {context}",
                tokens=longest,
                limit=context,
                hint="use fewer passes, fewer workers, or a model with a longer context",
            )
        return replace(self, history=history, own=own)


class WorkerUsage:
    """Tokens of a group so far."""

    def __init__(self, num_workers: int, num_prompt: int) -> None:
        self._num_read, self._num_sampled = num_prompt, 0
        self.last: list[int | None] = [None] * num_workers

    def add(self, worker: int, ids: Sequence[int], token: int) -> None:
        """A worker has read `ids`, the first of which may be its own last token, and sampled a token."""
        self._num_read += len(ids) - (ids[0] == self.last[worker])
        self._num_sampled += 1
        self.last[worker] = token

    @property
    def usage(self) -> Usage:
        return Usage(prompt_tokens=self._num_read, completion_tokens=self._num_sampled)
