"""The models, knowledge and verifiers of a stored run for its replay: recorded responses under recorded identities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.budget import Budget, LimitKind
from ..core.errors import DataError
from ..core.run import RunConfig
from ..core.store.protocol import RunRecord
from ..core.types import Answer
from ..reasoning.knowledge import KnowledgeSource
from ..reasoning.retrieval.metered import RecordedRetriever
from ..reasoning.retrieval.sources.client import recorded_source
from ..reasoning.strategy import Knowledge
from ..serving.metered.replay import ReplayEmbedding, ReplayModel, ReplayReward
from ..serving.model import Capabilities, LanguageModel
from ..serving.rewards.model import RewardCapabilities, RewardModel
from ..verify.entailment.metered import RecordedEntailment
from .resources import VerifierResources


def recorded_models(
    record: RunRecord, config: RunConfig, *, has_time_limit: bool
) -> tuple[dict[str, LanguageModel], RewardModel | None]:
    """The language models of a stored run by role, and its reward model if it had one.

    Args:
        has_time_limit: Whether the run had a time limit: then a missing response was not reached in time.

    Raises:
        DataError: The run was stopped before its models were recorded.
    """
    models: dict[str, LanguageModel] = {}
    reward: RewardModel | None = None
    for role, name in config.models.items():
        if role == "embedding":
            continue
        recorded = record.identities.get(role)
        if not isinstance(recorded, dict):
            raise DataError(f"run {record.id} was stopped before its models were recorded", hint="resume it instead")
        if role == "reward":
            reward = _recorded_reward(name, recorded, record, config.budget)
            continue
        capabilities = Capabilities.model_validate(recorded["capabilities"])
        models[role] = ReplayModel(
            name,
            str(recorded["identity"]),
            capabilities,
            limit="seconds" if has_time_limit else None,
            finished=record.status == "finished",
        )
    return models, reward


def _recorded_reward(name: str, recorded: Mapping[str, Any], record: RunRecord, budget: Budget) -> ReplayReward:
    capabilities = RewardCapabilities.model_validate(recorded["capabilities"])
    is_stopped = record.answer is not None and record.answer.get("stopped") == "budget"
    # the ledger of the replay enforces the other limits
    limit: LimitKind | None = "seconds" if budget.seconds is not None else "usd" if budget.usd is not None else None
    return ReplayReward(
        name,
        str(recorded["identity"]),
        capabilities,
        finished=record.status == "finished",
        limit=limit if is_stopped else None,
    )


def recorded_knowledge(record: RunRecord, *, has_time_limit: bool) -> Knowledge:
    """The knowledge of a stored run, which answers from the run store only.

    Args:
        has_time_limit: Whether the run had a time limit: then a missing response was not reached in time.

    Raises:
        DataError: The record is damaged.
    """
    try:
        sources: list[KnowledgeSource] = []
        while isinstance(recorded := record.identities.get(f"knowledge:{len(sources)}"), dict):
            sources.append(recorded_source(recorded, limit="seconds" if has_time_limit else None))
        recorded = record.identities.get("embedding")
        embedding = None if not isinstance(recorded, dict) else ReplayEmbedding.from_json(recorded)
    except (KeyError, TypeError, ValueError) as e:
        raise DataError(f"the record of run {record.id} is damaged: {e!r}") from e
    return Knowledge(tuple(sources), None, embedding)


def recorded_verifier_resources(record: RunRecord, config: RunConfig) -> VerifierResources:
    """Entailment models and retriever of a stored run, which answer from the run store only.

    Raises:
        DataError: The record is damaged.
    """
    try:
        is_stopped = record.answer is not None and _was_stopped(Answer.model_validate(record.answer))
        entailments = {
            role.removeprefix("entailment:"): RecordedEntailment(
                role.removeprefix("entailment:"),
                str(recorded["identity"]),
                None if (words := recorded["max_words"]) is None else int(str(words)),
                finished=record.status == "finished",
                limit="seconds" if is_stopped and config.budget.seconds is not None else None,
            )
            for role, recorded in record.identities.items()
            if role.startswith("entailment:") and isinstance(recorded, dict)
        }
        recorded_retriever = record.identities.get("retriever")
        retriever = None
        if isinstance(recorded_retriever, dict):
            notes = recorded_retriever.get("degraded")
            degraded = tuple(map(str, notes)) if isinstance(notes, list) else ()
            retriever = RecordedRetriever(
                str(recorded_retriever["name"]), str(recorded_retriever["identity"]), degraded
            )
    except (KeyError, TypeError, ValueError) as e:
        raise DataError(f"the record of run {record.id} is damaged: {e!r}") from e
    return VerifierResources(entailments, retriever)


def _was_stopped(answer: Answer) -> bool:
    """Whether a limit ended the run, or kept its verifiers from claims."""
    verification = answer.verification
    return answer.stopped == "budget" or (
        verification is not None and any(c.verdict == "unchecked" for c in verification.claims)
    )
