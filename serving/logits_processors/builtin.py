"""Hooks about sets of tokens: forbid them, allow nothing else, lean towards one set and away from another.

`step_control`: how long a step may be, how many there must be, and when the answer is opened.

`stop_on_confidence`: end a sample whose confidence over a sliding window of tokens has fallen too low.

`entropy_probe`: the exact entropy of the next-token distribution at chosen positions of a sample.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...core.errors import UserError
from .base import Hook, HookState, count, number, token_ids, token_sequence, within

if TYPE_CHECKING:
    from .base import Row


def forbid_tokens(ids: Sequence[int]) -> Hook:
    """A hook that never lets the given tokens be said.

    Args:
        ids: Token ids.
    """
    banned = token_ids("forbid_tokens", "ids", ids)

    def hook(row: Row, state: HookState) -> Row:
        changed = row.copy()
        changed[within("forbid_tokens", banned, row)] = float("-inf")
        return changed

    return hook


def only_tokens(ids: Sequence[int]) -> Hook:
    """A hook that lets nothing but the given tokens be said; the end-of-text token too if it is among them.

    Args:
        ids: Token ids, at least one.
    """
    allowed = token_ids("only_tokens", "ids", ids)
    if not allowed:
        raise UserError("hook 'only_tokens' got no token ids", hint="give at least one in args['ids']")

    def hook(row: Row, state: HookState) -> Row:
        return just(row, within("only_tokens", allowed, row))

    return hook


def steer(
    ids: Sequence[int] = (),
    weight: float = 2.0,
    away_ids: Sequence[int] = (),
    half_life_tokens: int | None = None,
    first: int | None = None,
) -> Hook:
    """A hook that leans towards one set of tokens, away from another, or both (the contrast between the two).

    Args:
        ids: Tokens whose logits are raised by `weight`.
        weight: Change of a logit, in nats; a negative one leans the other way.
        away_ids: Tokens whose logits are lowered by `weight`.
        half_life_tokens: After that many generated tokens the change is half as large, and so on; None keeps it.
        first: Only that many tokens are steered; None steers all.
    """
    toward, away = token_ids("steer", "ids", ids), token_ids("steer", "away_ids", away_ids)
    if not toward and not away:
        raise UserError("hook 'steer' got no token ids", hint="give args['ids'] or args['away_ids']")
    if both := set(toward) & set(away):
        raise UserError(f"hook 'steer': token {min(both)} is in both ids and away_ids")
    strength = number("steer", "weight", weight)
    half_life = None if half_life_tokens is None else count("steer", "half_life_tokens", half_life_tokens, 1)
    end = None if first is None else count("steer", "first", first, 1)

    def hook(row: Row, state: HookState) -> Row:
        at = len(state.generated_ids)
        if end is not None and at >= end:
            return row
        change = strength if half_life is None else strength * 0.5 ** (at / half_life)
        changed = row.copy()
        changed[within("steer", toward, row)] += change
        changed[within("steer", away, row)] -= change
        return changed

    return hook


def just(row: Row, ids: Sequence[int]) -> Row:
    """A copy of the row that leaves nothing but the given tokens."""
    changed = row.copy()
    changed[:] = float("-inf")
    changed[list(ids)] = row[list(ids)]
    return changed


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


@dataclass
class _Window:
    """Confidences of the last tokens, and the position of the last."""

    values: deque[float]
    last: int = -1


def stop_on_confidence(
    threshold: float, window: int = 1024, top: int = 20, min_tokens: int = 0, end_ids: Sequence[int] = ()
) -> Hook:
    """A hook that forces the end of the text once the group confidence is below a threshold.

    A token's confidence is the mean of -log p over the `top` most likely tokens at its place: high where one token
    holds nearly all the mass. The group confidence is its mean over the last `window` tokens, and counts once the
    window is full. `Completion.extras["stop_on_confidence"]` has `lowest` (lowest group confidence; None if no window
    was ever full) and `stopped_at` (position at which the text was ended; None if it was not).

    Args:
        threshold: Group confidence below which the sample ends, in nats; take it from a few samples that run to their
            end (the paper: such that the best tenth of them stays above).
        window: Tokens of a group.
        top: Most likely tokens that count at each place.
        min_tokens: Before so many tokens nothing is stopped.
        end_ids: What is forced: one of these tokens; empty is the model's own end of text.

    Source: Fu et al. 2025, Deep Think with Confidence, equation 2 (token confidence), equation 3 (group confidence) and
        section 3.2 (stopping online).
    """
    name = "stop_on_confidence"
    bound = number(name, "threshold", threshold)
    size, best = count(name, "window", window, 1), count(name, "top", top, 1)
    least = count(name, "min_tokens", min_tokens)
    ends = token_ids(name, "end_ids", end_ids)
    key = object()

    def hook(row: Row, state: HookState) -> Row:
        seen: _Window = state.memory.setdefault(key, _Window(deque(maxlen=size)))
        extras, at = state.extras, len(state.generated_ids)
        extras.setdefault("lowest", None)
        extras.setdefault("stopped_at", None)
        if seen.last == at:
            seen.values.pop()
        seen.values.append(confidence(row, best))
        seen.last = at
        if len(seen.values) < size:
            return row
        group = sum(seen.values) / size
        extras["lowest"] = group if extras["lowest"] is None else min(extras["lowest"], group)
        if group >= bound or at < least:
            return row
        last = ends or sorted(i for i in state.eos_ids if i < len(row))
        if not last:
            raise UserError(f"hook {name!r}: the model has no end-of-text token", hint="give one in args['end_ids']")
        if extras["stopped_at"] is None:
            extras["stopped_at"] = at
        return just(row, within(name, last, row))

    return hook


def confidence(row: Row, top: int) -> float:
    """Token confidence of a row of logits: mean of -log p over its `top` most likely tokens, in nats.

    Source: Fu et al. 2025, Deep Think with Confidence, equation 2.
    """
    import numpy as np

    shifted = row - row.max()
    log_total = float(np.log(np.exp(shifted).sum(dtype=np.float64)))
    top = min(top, len(row))
    best = np.partition(shifted, len(row) - top)[len(row) - top :]
    best = best[np.isfinite(best)]  # tokens that another hook has forbidden have no finite share
    return log_total - float(best.mean(dtype=np.float64))


def entropy_probe(
    first: int | None = None, positions: Sequence[int] | None = None, token_logprobs: Sequence[int] = ()
) -> Hook:
    """A hook that changes nothing and reports the entropy over the whole vocabulary.

    It reports, in `Completion.extras["entropy_probe"]`, lists of one length: `positions` (0 is the first generated
    token), `entropy` (in nats), and with `token_logprobs` also `logprobs` (for each position a list with one natural
    log-probability for each of those tokens, for example of Yes and No).

    Args:
        first: Only that many tokens are measured; None measures all.
        positions: Only these positions are measured, counted from 0. Not together with `first`.
        token_logprobs: Tokens whose log-probability is reported beside.
    """
    if first is not None and positions is not None:
        raise UserError("hook 'entropy_probe' takes either first or positions")
    end = None if first is None else count("entropy_probe", "first", first, 1)
    chosen = None
    if positions is not None:
        if not isinstance(positions, list | tuple):
            raise UserError(f"hook 'entropy_probe': positions must be a list of whole numbers, not {positions!r}")
        chosen = {count("entropy_probe", "positions", p) for p in positions}
    labels = token_ids("entropy_probe", "token_logprobs", token_logprobs)

    def hook(row: Row, state: HookState) -> Row:
        at = len(state.generated_ids)
        if (end is not None and at >= end) or (chosen is not None and at not in chosen):
            return row
        entropy, logprobs = measure(row, within("entropy_probe", labels, row))
        extras = state.extras
        seen: list[int] = extras.setdefault("positions", [])
        again = bool(seen) and seen[-1] == at
        _note(seen, at, again)
        _note(extras.setdefault("entropy", []), entropy, again)
        if labels:
            _note(extras.setdefault("logprobs", []), logprobs, again)
        return row

    return hook


def measure(row: Row, ids: Sequence[int] = ()) -> tuple[float, list[float]]:
    """Shannon entropy of a row of logits, in nats, and the log-probabilities of some tokens.

    With logits z, m = max z and Z = sum exp(z - m): H = log Z - sum exp(z - m) (z - m) / Z. Tokens at minus infinity
    have no share. Exponentials are fp32, sums fp64: the error stays below 1e-5 for vocabularies of 2e5.
    """
    import numpy as np

    shifted = row - row.max()
    weights = np.exp(shifted)
    total = float(weights.sum(dtype=np.float64))
    # A weight of zero next to minus infinity would give nan.
    moment = float(np.multiply(weights, shifted, where=weights > 0, out=np.zeros_like(weights)).sum(dtype=np.float64))
    log_total = float(np.log(total))
    return log_total - moment / total, [float(shifted[i]) - log_total for i in ids]


def _note(values: list[Any], value: Any, again: bool) -> None:
    """Append, or replace the last if the engine asks for its position a second time."""
    if again:
        values[-1] = value
    else:
        values.append(value)
