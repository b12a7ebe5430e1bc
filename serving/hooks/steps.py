"""`step_control`: how long a step may be, how many there must be, and when the answer is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...core.errors import UserError
from .arguments import count, token_ids, token_sequence, within
from .registry import Hook, HookState
from .tokens import just

if TYPE_CHECKING:
    from .registry import Row


@dataclass
class _Progress:
    """How far a sample is.

    Attributes:
        read: Generated tokens taken into account.
        steps: Steps that have ended.
        length: Tokens of the step under way.
        forced: Tokens that must come next.
        opened: Whether the answer has been opened.
    """

    read: int = 0
    steps: int = 0
    length: int = 0
    forced: list[int] = field(default_factory=list)
    opened: bool = False


def step_control(
    max_tokens: int = 0,
    end_ids: Sequence[int] = (),
    delimiter_ids: Sequence[int] = (),
    min_steps: int = 0,
    opener_ids: Sequence[int] = (),
    open_after_steps: int = 0,
    open_after_tokens: int = 0,
) -> Hook:
    """A hook that closes steps which grow too long, holds back the end of the text, and opens the answer.

    A step ends after the sequence `end_ids` or after any one of `delimiter_ids` (vocabularies have many tokens that
    contain a blank line). It reports `steps` (steps that had ended before
    the last token), `forced` (positions of the tokens it forced) and `opened_at` (position of
    the opener's first token, if it was forced) in `Completion.extras["step_control"]`.

    Args:
        max_tokens: Most tokens of a step; then `end_ids` is forced. 0 is no limit.
        end_ids: Tokens that close a step, in order.
        delimiter_ids: Tokens that end a step alone.
        min_steps: Before so many steps have ended, no token that ends the text is let through. 0 is no minimum.
        opener_ids: Tokens that open the answer, in order; from then on nothing is controlled.
        open_after_steps: The opener is forced when that many steps have ended; 0 never.
        open_after_tokens: The opener is forced at the latest after that many tokens, also within a step; 0 never.
    """
    name = "step_control"
    limit, least = count(name, "max_tokens", max_tokens), count(name, "min_steps", min_steps)
    after_steps = count(name, "open_after_steps", open_after_steps)
    after_tokens = count(name, "open_after_tokens", open_after_tokens)
    end, opener = token_sequence(name, "end_ids", end_ids), token_sequence(name, "opener_ids", opener_ids)
    delimiters = frozenset(token_ids(name, "delimiter_ids", delimiter_ids))
    if limit and not end:
        raise UserError(f"hook {name!r}: max_tokens needs end_ids", hint="the tokens that close a step, in order")
    if least and not end and not delimiters:
        raise UserError(f"hook {name!r}: min_steps needs end_ids or delimiter_ids", hint="else no step ever ends")
    if after_steps and not end and not delimiters:
        raise UserError(f"hook {name!r}: open_after_steps needs end_ids or delimiter_ids")
    if bool(opener) != bool(after_steps or after_tokens):
        raise UserError(f"hook {name!r}: opener_ids goes with open_after_steps or open_after_tokens")
    if not (limit or least or opener):
        raise UserError(f"hook {name!r} has nothing to do", hint="give max_tokens, min_steps or opener_ids")
    key = object()

    def read(progress: _Progress, generated: Sequence[int]) -> None:
        while progress.read < len(generated):
            token = generated[progress.read]
            progress.read += 1
            if progress.opened:
                progress.forced = progress.forced[1:]
                continue
            progress.length += 1
            closing = bool(progress.forced)
            progress.forced = progress.forced[1:]
            tail = list(generated[max(0, progress.read - len(end)) : progress.read])
            ended = bool(end) and progress.length >= len(end) and tail == end
            # What the sample had said of the end itself counts: then less of it needs to be forced.
            if ended or token in delimiters or (closing and not progress.forced):
                progress.steps, progress.length, progress.forced = progress.steps + 1, 0, []

    def hook(row: Row, state: HookState) -> Row:
        progress: _Progress = state.memory.setdefault(key, _Progress())
        read(progress, state.generated_ids)
        extras, at = state.extras, len(state.generated_ids)
        extras["steps"] = progress.steps
        if opener and not progress.opened and not progress.forced:
            due = after_steps and progress.steps >= after_steps
            if due or (after_tokens and at >= after_tokens):
                progress.opened, progress.forced = True, list(opener)
                extras["opened_at"] = at
        if limit and not progress.opened and not progress.forced and progress.length >= limit:
            progress.forced = list(end)
        if progress.forced:
            forced: list[int] = extras.setdefault("forced", [])
            if not forced or forced[-1] != at:
                forced.append(at)
            return just(row, within(name, progress.forced[:1], row))
        if not progress.opened and progress.steps < least and state.eos_ids:
            held = row.copy()
            held[[i for i in state.eos_ids if i < len(row)]] = float("-inf")
            return held
        return row

    return hook
