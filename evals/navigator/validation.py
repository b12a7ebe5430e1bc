"""The navigator as it is, greedy, on held-out problems."""

from __future__ import annotations

from collections.abc import Sequence

from ...reasoning.rlot.navigator import Navigator
from .each import each
from .navigation import Navigate, Navigation
from .problems import Problem
from .records import EpisodeRecord, Validation


async def validate(
    navigator: Navigator, problems: Sequence[Problem], navigate: Navigate, concurrency: int, *, episode: int
) -> Validation:
    """Let a navigator choose all blocks on each of some problems.

    Args:
        navigator: What chooses.
        problems: At least one.
        navigate: Makes an episode.
        concurrency: Most episodes under way at a time.
        episode: Episodes of the training so far.

    Raises:
        ReasonError: As `Navigation.begin` and `act`.
    """
    records = await each(problems, lambda problem: greedy_episode(navigator, navigate(problem)), concurrency)
    asked = sum(r.scores_asked for r in records)
    return Validation(
        episode=episode,
        problems=len(records),
        correct=sum(r.correct for r in records),
        earned=sum(r.earned for r in records) / len(records),
        length=sum(r.length for r in records) / len(records),
        missing=sum(r.scores_missing for r in records) / asked if asked else 0.0,
        tokens=sum(r.tokens for r in records) / len(records),
    )


async def greedy_episode(navigator: Navigator, navigation: Navigation) -> EpisodeRecord:
    """One episode by the highest legal values."""
    try:
        await navigation.begin()
        while not navigation.done:
            await navigation.act(navigator.choose(navigation.state, navigation.legal))
        return navigation.record(1)
    finally:
        await navigation.close()


def chosen_for_validation(held_out: Sequence[Problem], count: int) -> tuple[Problem, ...]:
    """The held-out problems that are asked: those of the lowest digests, so the same ones in any order of the data."""
    return tuple(sorted(held_out, key=lambda problem: (problem.digest, problem.key))[:count])
