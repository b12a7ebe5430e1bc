"""Which problems are hard: those that the model gets wrong when it answers directly, with one greedy chain of thought.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140, which trains on these alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...core.answer import Answer
from ...core.errors import UserError
from ...reasoning.strategy import Models, make_strategy
from .desk import Desk
from .each import each
from .navigation import EPISODE_FAILS
from .problems import Problem


async def direct_answers(
    problems: Sequence[Problem],
    desk: Desk,
    concurrency: int,
    told: Callable[[Problem, bool], None] = lambda _problem, _correct: None,
) -> dict[tuple[str, str], bool]:
    """Whether the direct answer to each problem is right, by the problem's key.

    Args:
        problems: The problems.
        desk: Models, store and judges.
        concurrency: Most under way at a time.
        told: Told of each answer as it comes.

    Raises:
        LimitExceeded: The tokens of the training do not cover the next answer; what was answered is in the store.
        BackendError: The model failed.
    """
    strategy, parameters = make_strategy("cot", desk.plan.direct)
    longest = parameters.get("max_tokens")

    async def ask(problem: Problem) -> bool:
        with desk.reserve(longest if isinstance(longest, int) else 0):
            visit = desk.visit(problem, "cot", parameters)
            await desk.begin(visit)
            answer: Answer | None = None
            correct = False
            try:
                solution = await strategy.solve(problem.item.question, Models({"main": visit.main}), visit.run)
                if solution.best is not None:
                    answer, score = await desk.judge(visit, solution.best)
                    correct = score.correct is True
            except EPISODE_FAILS:
                pass  # no answer is no right one
            except BaseException:
                await desk.end(visit, "interrupted")
                raise
        await desk.end(visit, "finished", answer)
        told(problem, correct)
        return correct

    found = await each(problems, ask, concurrency)
    return {problem.key: correct for problem, correct in zip(problems, found, strict=True)}


def hard_ones(problems: Sequence[Problem], right: dict[tuple[str, str], bool]) -> tuple[Problem, ...]:
    """The problems whose direct answer is wrong.

    Raises:
        UserError: There are none.
    """
    hard = tuple(problem for problem in problems if not right[problem.key])
    if not hard:
        raise UserError(
            f"the model answers all {len(problems)} training questions right when asked directly: none is hard",
            hint="train on harder questions, on more of them, or on --problems all",
        )
    return hard
