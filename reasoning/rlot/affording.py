"""`lacks`: whether the budget covers blocks with the answer behind them; and `at_once`, what runs side by side.

A block is begun only if the most that it could cost fits in with the answer left over, so that an answer can always be
asked for. Everything but the time is a function of the replies alone, so that a replay decides alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ...core.budget import LimitKind
from ...core.errors import ReasonError
from ...core.run import Run
from ...core.together import together
from .block_runner import BlockRunner
from .blocks import Block
from .trajectory import Trajectory

T = TypeVar("T")
_FIXED_BYTES = 1_000
"""More than the fixed words of any prompt have."""


def lacks(
    run: Run,
    runner: BlockRunner,
    trajectory: Trajectory,
    blocks: Sequence[Block],
    *,
    assesses: bool,
    tokens: int = 0,
    calls: int = 0,
) -> LimitKind | None:
    """The limit that does not cover blocks and an answer behind them; None if all do.

    Time is short if what is left is no more than twice what is kept back for an answer (`AnswerTime.kept_s`).

    Args:
        run: The run.
        runner: What would run them.
        trajectory: Where they would begin.
        blocks: The blocks, all of them to be run; none is the answer alone.
        assesses: Whether the model assesses itself behind each.
        tokens: Tokens to be generated beside them.
        calls: Requests beside them.
    """
    ledger = run.ledger
    tokens += sum(runner.most_tokens(block, assesses=assesses) for block in blocks) + runner.limits.answer_tokens
    calls += sum(runner.most_calls(block, assesses=assesses) for block in blocks) + 1
    if tokens > ledger.left("tokens"):
        return "tokens"
    if calls > ledger.left("calls"):
        return "calls"
    if ledger.budget.usd is not None and _usd(runner, trajectory, tokens, calls) > ledger.left("usd"):
        return "usd"
    seconds = ledger.seconds_left()
    if seconds is not None and seconds <= 2 * runner.asker.time.kept_s:
        return "seconds"
    return None


def _usd(runner: BlockRunner, trajectory: Trajectory, tokens: int, calls: int) -> float:
    """The most that so many requests could cost, each of which may show all that the others have written."""
    can = runner.asker.model.capabilities
    question = trajectory.question
    texts = [
        runner.asker.system,
        question.text,
        *(turn.content for turn in question.conversation),
        *(call.model_dump_json() for turn in question.conversation for call in turn.tool_calls),
        *question.choices,
        *(document.text for document in question.documents),
        *trajectory.steps,
    ]
    # bytes and no count: no tokenizer makes more tokens of a text, and a replay has none
    shown = sum(len(text.encode()) + 8 for text in texts) + _FIXED_BYTES + tokens
    return calls * shown * (can.usd_per_prompt_token or 0.0) + tokens * (can.usd_per_completion_token or 0.0)


def unbounded(run: Run) -> bool:
    """Whether nothing but time limits the run.

    Then work may go on side by side: how much of a limit is left for one never depends on how far the others are, and
    a replay asks what the run asked.
    """
    budget = run.ledger.budget
    return budget.tokens is None and budget.calls is None and budget.usd is None and budget.reward_calls is None


async def at_once(works: Sequence[Callable[[], Awaitable[T]]], run: Run) -> list[T | ReasonError]:
    """What works come to, side by side where nothing but time limits the run, else one after another.

    Returns:
        For each its result, or the error that it ended with.
    """

    async def one(work: Callable[[], Awaitable[T]]) -> T | ReasonError:
        try:
            return await work()
        except ReasonError as e:
            return e

    if not unbounded(run):
        return [await one(work) for work in works]
    return await together([one(work) for work in works])
