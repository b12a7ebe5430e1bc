"""The card of a trained navigator: what it was trained with, on what, and how that went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import JsonValue

from ...core.version import __version__
from ...reasoning.rlot.assessment import State
from ...reasoning.rlot.navigator import NavigatorCard
from .desk import Desk
from .problems import Problem
from .records import EpisodeRecord, Validation

LAST = 100
"""Episodes at the end over which the card gives means."""
STATES = 12
"""Most common states that the card names."""


def card_of(
    desk: Desk, problems: Sequence[Problem], records: Sequence[EpisodeRecord], validations: Sequence[Validation]
) -> NavigatorCard:
    """The card of a training's navigator.

    Its notes have the means of the last episodes, the last validation, what was spent, the most common states with
    their number, and the data's warnings. All questions of the training are listed by digest, drawn or not.

    Args:
        desk: Models, plan and what was spent.
        problems: What it was trained on.
        records: Its episodes.
        validations: Its validations.
    """
    plan = desk.plan
    config = desk.config
    return NavigatorCard(
        name=f"{plan.model.rpartition('/')[2]}-{'+'.join(use.name for use in plan.datasets)}-{plan.reward}",
        model=plan.model,
        model_identity=desk.model.identity,
        reward=plan.reward,
        reward_model=plan.reward_model or "",
        datasets=tuple(use.whole_name for use in plan.datasets),
        episodes=len(records),
        steps=records[-1].steps if records else 0,
        problems=len(problems),
        seed=plan.seed,
        gamma=plan.learning.gamma,
        max_blocks=config.max_blocks,
        mask_mode=config.mask_mode,
        refine_mode=config.refine_mode,
        parameters=plan.parameters,
        trained_on=tuple(sorted({problem.digest for problem in problems})),
        created=datetime.now(UTC).date().isoformat(),
        version=__version__,
        notes=_notes(desk, records, validations),
    )


def common_states(records: Sequence[EpisodeRecord], most: int = STATES) -> list[tuple[State, int]]:
    """The states in which a block was chosen, with how often, most first; equally common ones in ascending order."""
    counts = Counter(state for r in records for state in r.states[: len(r.actions)])
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:most]


def _notes(desk: Desk, records: Sequence[EpisodeRecord], validations: Sequence[Validation]) -> dict[str, JsonValue]:
    last = records[-LAST:]
    notes: dict[str, JsonValue] = {
        "problems": desk.plan.problems,
        "held_out_share": desk.plan.held_out,
        "learning": desk.plan.learning.model_dump(mode="json"),
        "parallel": desk.plan.parallel,
        "generated_tokens": desk.spent.tokens,
        "reused_replies": desk.spent.reused_replies,
        "common_states": [[list(state), count] for state, count in common_states(records)],
    }
    if last:
        notes["last_episodes"] = {
            "episodes": len(last),
            "return": sum(r.earned for r in last) / len(last),
            "accuracy": sum(r.correct for r in last) / len(last),
            "length": sum(r.length for r in last) / len(last),
        }
        asked = sum(r.scores_asked for r in records)
        notes["missing_scores"] = sum(r.scores_missing for r in records) / asked if asked else 0.0
    if validations:
        notes["validation"] = validations[-1].model_dump(mode="json")
    warnings = [use.warning for use in desk.plan.datasets if use.warning]
    if warnings:
        notes["warnings"] = list(warnings)
    return notes
