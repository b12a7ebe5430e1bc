"""Rules that choose one of several trajectories: pure functions of `Trajectory`.

| rule | choice |
| --- | --- |
| `race` | the first that ends by itself or proposes changes; the others are cancelled |
| `ended-fewest-calls` | of those that ended by themselves or propose changes, the one with the fewest tool calls |
| `agreement` | a vote over equal changes, which need more than half of all trajectories; without changes over answers |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...core.errors import UserError
from ...core.messages import Tool, canonical_calls
from ...core.run import Run
from ...core.types import Candidate, Question, Solution
from ...reasoning.answers.calls import normalized_calls, settle_calls
from ...reasoning.answers.equivalence import answer_classes
from .trajectory import Trajectory

RULES = ("race", "ended-fewest-calls", "agreement")


class Choice(NamedTuple):
    """The chosen trajectory's position, and why; without one, `question` is what the user is asked."""

    position: int | None
    reason: str
    question: Candidate | None = None


def check_rule(rule: str) -> None:
    """Refuse a rule that there is not.

    Raises:
        UserError: The message lists those that there are.
    """
    if rule and rule not in RULES:
        raise UserError(
            f"there is no rule {rule!r} to choose a trajectory", hint=f"one of {', '.join(RULES)}", param="select"
        )


async def choose(
    rule: str, trajectories: Sequence[Trajectory], *, tools: Sequence[Tool], question: Question, run: Run
) -> Choice:
    """Choose one of the trajectories, of equals the first; of a race the trajectories up to its end."""
    eligible = [i for i, one in enumerate(trajectories) if one.is_eligible]
    num = len(trajectories)
    if not eligible:
        furthest = max(range(num), key=lambda i: (trajectories[i].num_turns, -i))
        return Choice(furthest, f"none of {num} ended by itself, and it went furthest")
    if rule == "race":
        return Choice(eligible[0], f"it ended first of {num}")
    if rule == "ended-fewest-calls":
        best = min(eligible, key=lambda i: trajectories[i].num_calls)
        calls = trajectories[best].num_calls
        return Choice(best, f"it has the fewest tool calls, {calls}, of the {len(eligible)} of {num} that ended")
    return await _agreed(trajectories, eligible, tools, question, run)


async def _agreed(
    trajectories: Sequence[Trajectory],
    eligible: Sequence[int],
    tools: Sequence[Tool],
    question: Question,
    run: Run,
) -> Choice:
    """The choice of a vote, as samples of one turn vote (`settle_calls`), each with all its changes."""
    changes = [one.held or one.writes for one in trajectories]
    keys = [
        (normalized_calls(calls, tools) if calls else one.answer) if i in eligible else None
        for i, (one, calls) in enumerate(zip(trajectories, changes, strict=True))
    ]
    candidates = tuple(
        Candidate(text=one.answer or "", answer=canonical_calls(calls) if calls else one.answer, tool_calls=calls)
        for one, calls in zip(trajectories, changes, strict=True)
    )
    offered = question.model_copy(update={"tools": tuple(tools)})
    classes = sorted(await answer_classes(keys, offered, run), key=len, reverse=True)  # stable
    shares = [len(own) / len(trajectories) for own in classes]
    first = Solution(chosen=classes[0][0], candidates=candidates)
    solution = settle_calls(first, classes, shares, offered)
    if solution.stopped == "abstained":
        return Choice(None, "no changes were proposed by more than half of them", solution.best)
    (own,) = (own for own in classes if solution.chosen in own)
    kind = "changes" if changes[own[0]] else "answer"
    return Choice(own[0], f"{len(own)} of {len(trajectories)} agree on its {kind}")
