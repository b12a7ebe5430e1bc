"""The built-in logits processors of one sample: token sets, steering, step control, entropy probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...core.errors import UserError
from .registry import LogitsProcessor, ProcessorState, count, number, token_ids, token_sequence, within

if TYPE_CHECKING:
    from .registry import Row


def keep_only(row: Row, ids: Sequence[int]) -> Row:
    """A copy of the row in which all other tokens are at minus infinity."""
    changed = row.copy()
    changed[:] = float("-inf")
    changed[list(ids)] = row[list(ids)]
    return changed


def forbid_tokens(ids: Sequence[int]) -> LogitsProcessor:
    """A processor under which the given tokens are never sampled."""
    banned = token_ids("forbid_tokens", "ids", ids)

    def process(row: Row, state: ProcessorState) -> Row:
        changed = row.copy()
        changed[within("forbid_tokens", banned, row)] = float("-inf")
        return changed

    return process


def only_tokens(ids: Sequence[int]) -> LogitsProcessor:
    """A processor under which only the given tokens are sampled; the end of text too if it is among them."""
    allowed = token_ids("only_tokens", "ids", ids)
    if not allowed:
        raise UserError("logits processor 'only_tokens' got no token ids", hint="give at least one in args['ids']")

    def process(row: Row, state: ProcessorState) -> Row:
        return keep_only(row, within("only_tokens", allowed, row))

    return process


def steer(
    ids: Sequence[int] = (),
    weight: float = 2.0,
    away_ids: Sequence[int] = (),
    half_life_tokens: int | None = None,
    first: int | None = None,
) -> LogitsProcessor:
    """A processor that biases sampling towards one set of tokens, away from another, or both.

    Args:
        ids: Tokens whose logits are raised by `weight`.
        weight: Change of a logit, in nats; a negative one has the opposite effect.
        away_ids: Tokens whose logits are lowered by `weight`.
        half_life_tokens: Number of generated tokens after which the change is halved; None keeps it constant.
        first: Number of tokens that are steered; None is all.
    """
    toward, away = token_ids("steer", "ids", ids), token_ids("steer", "away_ids", away_ids)
    if not toward and not away:
        raise UserError("logits processor 'steer' got no token ids", hint="give args['ids'] or args['away_ids']")
    if both := set(toward) & set(away):
        raise UserError(f"logits processor 'steer': token {min(both)} is in both ids and away_ids")
    strength = number("steer", "weight", weight)
    half_life = None if half_life_tokens is None else count("steer", "half_life_tokens", half_life_tokens, 1)
    end = None if first is None else count("steer", "first", first, 1)

    def process(row: Row, state: ProcessorState) -> Row:
        position = len(state.generated_ids)
        if end is not None and position >= end:
            return row
        change = strength if half_life is None else strength * 0.5 ** (position / half_life)
        changed = row.copy()
        changed[within("steer", toward, row)] += change
        changed[within("steer", away, row)] -= change
        return changed

    return process


# -- step control


@dataclass
class _StepProgress:
    """Steps of a sample so far.

    Attributes:
        read: Generated tokens that were processed.
        steps: Finished steps.
        length: Tokens of the current step.
        forced: Tokens that must be next.
    """

    read: int = 0
    steps: int = 0
    length: int = 0
    forced: list[int] = field(default_factory=list)


def step_control(
    max_tokens: int = 0,
    end_ids: Sequence[int] = (),
    delimiter_ids: Sequence[int] = (),
    min_steps: int = 0,
) -> LogitsProcessor:
    """A processor that ends steps which grow too long, and delays the end of the text.

    A step ends after the sequence `end_ids` or after any one of `delimiter_ids` (vocabularies have many tokens that
    contain a blank line). It reports `steps` (steps finished before the last token) and `forced` (positions of the
    tokens that it forced) in `Completion.extras["step_control"]`.

    Args:
        max_tokens: Maximum tokens of a step, after which `end_ids` is forced; 0 is no limit.
        end_ids: Tokens that end a step, in order.
        delimiter_ids: Tokens each of which ends a step.
        min_steps: Number of steps before which the end of text is not sampled; 0 is no minimum.
    """
    name = "step_control"
    limit, minimum = count(name, "max_tokens", max_tokens), count(name, "min_steps", min_steps)
    end = token_sequence(name, "end_ids", end_ids)
    delimiters = frozenset(token_ids(name, "delimiter_ids", delimiter_ids))
    if limit and not end:
        raise UserError(
            f"logits processor {name!r}: max_tokens needs end_ids", hint="they are the tokens that end a step, in order"
        )
    if minimum and not end and not delimiters:
        raise UserError(
            f"logits processor {name!r}: min_steps needs end_ids or delimiter_ids", hint="otherwise no step ever ends"
        )
    if not (limit or minimum):
        raise UserError(f"logits processor {name!r} has no effect", hint="give max_tokens or min_steps")
    key = object()

    def read(progress: _StepProgress, generated: Sequence[int]) -> None:
        while progress.read < len(generated):
            token = generated[progress.read]
            progress.read += 1
            progress.length += 1
            was_forced = bool(progress.forced)
            progress.forced = progress.forced[1:]
            tail = list(generated[max(0, progress.read - len(end)) : progress.read])
            # the sample may have generated a part of the end itself: then less of it is forced
            ended = bool(end) and progress.length >= len(end) and tail == end
            if ended or token in delimiters or (was_forced and not progress.forced):
                progress.steps, progress.length, progress.forced = progress.steps + 1, 0, []

    def process(row: Row, state: ProcessorState) -> Row:
        progress: _StepProgress = state.memory.setdefault(key, _StepProgress())
        read(progress, state.generated_ids)
        extras, position = state.extras, len(state.generated_ids)
        extras["steps"] = progress.steps
        if limit and not progress.forced and progress.length >= limit:
            progress.forced = list(end)
        if progress.forced:
            forced: list[int] = extras.setdefault("forced", [])
            if not forced or forced[-1] != position:
                forced.append(position)
            return keep_only(row, within(name, progress.forced[:1], row))
        if progress.steps < minimum and state.eos_ids:
            without_eos = row.copy()
            without_eos[[i for i in state.eos_ids if i < len(row)]] = float("-inf")
            return without_eos
        return row

    return process


# -- entropy probe


def entropy_probe(
    first: int | None = None, positions: Sequence[int] | None = None, token_logprobs: Sequence[int] = ()
) -> LogitsProcessor:
    """A processor that changes nothing and reports the entropy over the complete vocabulary.

    `Completion.extras["entropy_probe"]` has lists of one length: `positions` (0 is the first generated token),
    `entropy` (in nats), and with `token_logprobs` also `logprobs` (for each position a list with the natural
    log-probability of each of those tokens, for example of Yes and No).

    Args:
        first: Number of tokens that are measured; None is all.
        positions: Positions that are measured, counted from 0; not together with `first`.
        token_logprobs: Tokens whose log-probabilities are reported too.
    """
    if first is not None and positions is not None:
        raise UserError("logits processor 'entropy_probe' takes either first or positions")
    end = None if first is None else count("entropy_probe", "first", first, 1)
    wanted_positions = None
    if positions is not None:
        if not isinstance(positions, list | tuple):
            raise UserError(
                f"logits processor 'entropy_probe': positions must be a list of integers, got {positions!r}"
            )
        wanted_positions = {count("entropy_probe", "positions", p) for p in positions}
    labels = token_ids("entropy_probe", "token_logprobs", token_logprobs)

    def process(row: Row, state: ProcessorState) -> Row:
        position = len(state.generated_ids)
        if (end is not None and position >= end) or (wanted_positions is not None and position not in wanted_positions):
            return row
        entropy, logprobs = measure(row, within("entropy_probe", labels, row))
        extras = state.extras
        measured: list[int] = extras.setdefault("positions", [])
        is_repeated = bool(measured) and measured[-1] == position
        _append(measured, position, is_repeated)
        _append(extras.setdefault("entropy", []), entropy, is_repeated)
        if labels:
            _append(extras.setdefault("logprobs", []), logprobs, is_repeated)
        return row

    return process


def measure(row: Row, ids: Sequence[int] = ()) -> tuple[float, list[float]]:
    """Shannon entropy of a row of logits, in nats, and the log-probabilities of some tokens.

    With logits z, m = max z and Z = sum exp(z - m): H = log Z - sum exp(z - m) (z - m) / Z. Tokens at minus infinity
    do not contribute. Exponentials are fp32, sums fp64: the error is below 1e-5 for vocabularies of 2e5.
    """
    import numpy as np

    shifted = row - row.max()
    weights = np.exp(shifted)
    total = float(weights.sum(dtype=np.float64))
    # zero times minus infinity would be nan
    moment = float(np.multiply(weights, shifted, where=weights > 0, out=np.zeros_like(weights)).sum(dtype=np.float64))
    log_total = float(np.log(total))
    return log_total - moment / total, [float(shifted[i]) - log_total for i in ids]


def _append(values: list[Any], value: Any, is_repeated: bool) -> None:
    """Append, or replace the last value if the engine requests its position again."""
    if is_repeated:
        values[-1] = value
    else:
        values.append(value)
