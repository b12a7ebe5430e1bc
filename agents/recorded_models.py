"""The models of a stored run as a replay has them: not there, but known to the run store by their identities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.budget import Budget, LimitKind
from ..core.errors import DataError
from ..core.run import RunConfig
from ..core.store import RunRecord
from ..serving.model import Capabilities, LanguageModel
from ..serving.recorded import RecordedModel
from ..serving.recorded_rewards import RecordedReward
from ..serving.rewards import RewardCapabilities, RewardModel


def recorded_models(
    record: RunRecord, config: RunConfig, *, out_of_time: bool
) -> tuple[dict[str, LanguageModel], RewardModel | None]:
    """The language models by role, and the reward model if there was one.

    Args:
        record: The run.
        config: How it was configured.
        out_of_time: Whether it had a time limit: what it has no reply to, it did not get to.

    Raises:
        DataError: The run was stopped before its models were noted.
    """
    models: dict[str, LanguageModel] = {}
    reward: RewardModel | None = None
    for role, name in config.models.items():
        if role == "embedding":
            continue
        known = record.identities.get(role)
        if not isinstance(known, dict):
            raise DataError(f"run {record.id} was stopped before its models were noted", hint="resume it instead")
        if role == "reward":
            reward = _recorded_reward(name, known, record, config.budget)
            continue
        capabilities = Capabilities.model_validate(known["capabilities"])
        models[role] = RecordedModel(name, str(known["identity"]), capabilities, out_of_time=out_of_time)
    return models, reward


def _recorded_reward(name: str, known: Mapping[str, Any], record: RunRecord, budget: Budget) -> RecordedReward:
    capabilities = RewardCapabilities.model_validate(known["capabilities"])
    stopped = record.answer is not None and record.answer.get("stopped") == "budget"
    # what other limits stopped, the ledger of the replay stops too
    spent: LimitKind | None = "seconds" if budget.seconds is not None else "usd" if budget.usd is not None else None
    return RecordedReward(
        name,
        str(known["identity"]),
        capabilities,
        finished=record.status == "finished",
        spent=spent if stopped else None,
    )
