"""Who plays which role: from settings to model strings by role, and back. Jurors are roles that are numbered from 1."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from .settings import Settings

T = TypeVar("T")

JURY, CHAIR = "jury", "chair"
"""Roles of several models that answer the same, and of the one that makes one answer of theirs."""


def juror_role(number: int) -> str:
    """The role of a juror, the first of whom has number 1: "juror-1"."""
    return f"juror-{number}"


def plays(role: str, used: Collection[str]) -> bool:
    """Whether a model's role is among those that are asked for, a juror's where "jury" is."""
    return role in used or (JURY in used and role.removeprefix("juror-").isdigit())


def jurors_of(by_role: Mapping[str, T]) -> tuple[T, ...]:
    """What belongs to the jurors, in their order; empty where there is none."""
    found: list[T] = []
    while (role := juror_role(len(found) + 1)) in by_role:
        found.append(by_role[role])
    return tuple(found)


def models_by_role(settings: Settings, used: Collection[str]) -> dict[str, str]:
    """Model strings by role, as a run's configuration has them.

    Args:
        settings: Say who plays which role.
        used: The roles that are asked for. Models of others are left out, but for the main one: nobody would ask them,
            and they would have to be opened.
    """
    models = {
        "small": settings.small_model,
        "judge": settings.judge_model,
        "reward": settings.reward_model,
        CHAIR: settings.chair_model,
        **{juror_role(i): name for i, name in enumerate(settings.jurors, 1)},
    }
    return {"main": settings.model} | {role: n for role, n in models.items() if n is not None and plays(role, used)}


def settings_of_roles(models: Mapping[str, str]) -> dict[str, Any]:
    """The settings under which these models play these roles, and no others; the inverse of `models_by_role`."""
    return {
        "model": models["main"],
        "small_model": models.get("small"),
        "judge_model": models.get("judge"),
        "reward_model": models.get("reward"),
        "chair_model": models.get(CHAIR),
        "jurors": jurors_of(models),
    }
