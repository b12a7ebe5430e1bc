"""What all reward models that are computed here or on vLLM share: inputs of solutions, and scores of inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ...core.errors import ContextTooLong, ReasonError
from ...core.messages import Failure, Usage
from ...core.scorer_settings import RewardSettings
from ..rewards import StepScores, Which
from .forms import Form, Rendered


@dataclass(frozen=True)
class Inputs:
    """The inputs of one solution, or why it has none."""

    rendered: tuple[Rendered, ...] = ()
    failure: Failure | None = None


def inputs_of(form: Form, problem: str, steps: Sequence[str], which: Which, limit: int | None) -> Inputs:
    """What must be computed to score a solution.

    Args:
        form: How inputs are made.
        problem: The problem's text.
        steps: The solution's steps.
        which: Whether all scores are wanted.
        limit: Most tokens of an input; None is no limit.
    """
    ends = [len(steps)] if form.one_pass or which == "last" else range(1, len(steps) + 1)
    made = []
    try:
        for end in ends:
            rendered = form.render(problem, steps[:end])
            check_length(len(rendered.ids), limit)
            made.append(rendered)
    except ReasonError as e:
        return Inputs(failure=Failure(code=e.code, message=str(e)))
    if form.one_pass and which == "last":
        made = [Rendered(r.ids, r.positions[-1:]) for r in made]
    return Inputs(tuple(made))


def check_length(tokens: int, limit: int | None) -> None:
    """Raises `ContextTooLong` if an input does not fit the reward model."""
    if limit is not None and tokens > limit:
        raise ContextTooLong(
            f"the reward model's input has {tokens} tokens; it takes {limit}",
            tokens=tokens,
            limit=limit,
            hint="drop the oldest steps, or raise max_tokens if the model can take more",
        )


def scores_of(inputs: Inputs, log_odds: Sequence[Sequence[float]]) -> StepScores:
    """A solution's scores from those of its inputs."""
    if inputs.failure is not None:
        return StepScores(passes=0, failure=inputs.failure)
    return StepScores(
        log_odds=tuple(x for row in log_odds for x in row),
        passes=len(inputs.rendered),
        usage=Usage(prompt_tokens=sum(len(r.ids) for r in inputs.rendered)),
    )


def failed(error: ReasonError, passes: int = 0) -> StepScores:
    """A solution that could not be scored."""
    return StepScores(passes=passes, failure=Failure(code=error.code, message=str(error)))


def asked_as(settings: RewardSettings) -> str:
    """Part of an identity: a hash of those settings that change a score."""
    text = settings.model_dump_json(exclude={"batch_tokens", "device", "dtype", "max_tokens"})
    return hashlib.sha256(text.encode()).hexdigest()[:12]
