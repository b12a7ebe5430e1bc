"""What the verifiers of runs work with: judges and retrievers, loaded at first use and shared by many runs.

`Reasoner` takes `VerifierPool` from the entry-point group `reason.resources`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from ...core.budget import CostBound, LimitKind
from ...core.errors import BackendUnavailable, DataError, StoreError, UserError
from ...core.files import Progress
from ...core.run import Run, RunConfig
from ...core.settings import Settings
from ...core.store.records import RunRecord
from ...core.types import Answer
from ...reasoning.knowledge import Retriever
from ...reasoning.strategy import Models
from ...serving.metered.calls import RecordedCalls, ResponseCodec
from ...serving.metered.replay import ReplayStub
from ..types import Entailment, Pair, Support
from ..verifier import BUILT_IN_JUDGES, LEXICAL, MODEL, PreparesItself, Verifier, VerifierContext
from .factory import load_entailment, resolve_judge
from .judge import JudgeEntailment
from .lexical import LexicalEntailment


class MeteredEntailment:
    """A classifier of one run, with budget, run store and trace; it is an `Entailment` itself.

    A judge needs none of it: its language model is metered and records its own responses.

    The pairs of a call are charged to `Budget.reward_calls` before anything is computed, one pass each; equal pairs are
    judged once. Pairs that the run store has are not judged again, but charged all the same, so that a resumed run
    spends what it would have spent. Unparsed responses are neither stored nor charged.
    """

    def __init__(self, entailment: Entailment, run: Run) -> None:
        self._entailment = entailment
        self.name, self.identity, self.max_words = entailment.name, entailment.identity, entailment.max_words
        self._calls = RecordedCalls(run, "entailment", self.name, self.identity)

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """See `Entailment.judge`; pairs that the store has are not judged again.

        Raises:
            BudgetExceeded: The pairs do not fit the budget, or the time is over.
        """
        if not pairs:
            return []
        distinct = list(dict.fromkeys(pairs))

        async def compute(positions: list[int]) -> list[Support | None]:
            return await self._entailment.judge([distinct[i] for i in positions])

        requests: list[dict[str, JsonValue]] = [{"entailment": dict(pair._asdict())} for pair in distinct]
        cost = CostBound(reward_calls=len(distinct))
        verdicts = await self._calls.answer("entailment", requests, compute, _CODEC, cost=cost)
        by_pair = dict(zip(distinct, verdicts, strict=True))
        return [by_pair[pair] for pair in pairs]

    async def aclose(self) -> None:
        """Do nothing: the entailment is closed by its owner."""


def _dump(support: Support | None) -> dict[str, JsonValue]:
    return {"probs": [] if support is None else list(support)}


def _load(response: dict[str, JsonValue]) -> Support | None:
    probs = response.get("probs")
    numbers = [float(p) for p in probs if isinstance(p, int | float)] if isinstance(probs, list) else []
    if len(numbers) != 3:
        raise StoreError(
            f"the store has {str(response)[:80]!r} as the verdict of a pair",
            hint="another version of reason wrote it",
        )
    return Support(*numbers)


_CODEC: ResponseCodec[Support | None] = ResponseCodec(
    dump=_dump,
    load=_load,
    reward_calls=lambda support: 1,
    is_ok=lambda support: support is not None,
    failure=lambda error: None,
)


class RecordedEntailment(ReplayStub):
    """Replaces an entailment in a replay.

    Unparsed verdicts are not stored, so a finished run may request verdicts that the store does not have: they are
    unparsed again.
    """

    max_words: int | None = None

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """Raise `not_recorded`; `MeteredEntailment` returns None for the pairs if the recorded run finished."""
        raise self.not_recorded("a verdict")


@dataclass(frozen=True)
class EntailmentResources:
    """Entailment models and the retriever of one run's verifiers.

    Attributes:
        entailments: Entailment models by name, not metered.
        retriever: Where evidence is retrieved from; None if nowhere.
        strategy_judge: The name of the judge that the strategy requests; empty if none.
    """

    entailments: Mapping[str, Entailment] = field(default_factory=dict)
    retriever: Retriever | None = None
    strategy_judge: str = ""

    def for_strategy(self, run: Run) -> MeteredEntailment | None:
        """The entailment model of a run's strategy, charged to the run; None if it has none that was loaded."""
        entailment = self.entailments.get(self.strategy_judge)
        return None if entailment is None else MeteredEntailment(entailment, run)

    def context(self, run: Run, models: Models, entailment: str) -> VerifierContext:
        """What a verifier works with in a run, charged to it.

        Args:
            entailment: The name of the verifier's judge, resolved.
        """
        if entailment == MODEL:
            model: Entailment = JudgeEntailment(models.judge)
        elif entailment == LEXICAL:
            model = LexicalEntailment()
        else:
            model = MeteredEntailment(self.entailments[entailment], run)
        retriever = None
        if self.retriever is not None:
            from ...reasoning.retrieval.retriever import MeteredRetriever

            retriever = MeteredRetriever(self.retriever, run)
        for what in self._degraded():
            run.degrade(f"evidence: {what}")
        return VerifierContext(run=run, models=models, entailment=model, retriever=retriever)

    def identities(self) -> dict[str, Any]:
        """What a replay needs to know, by role."""
        identities: dict[str, Any] = {
            f"entailment:{name}": {"identity": e.identity, "max_words": e.max_words}
            for name, e in self.entailments.items()
        }
        if self.retriever is not None:
            identities["retriever"] = {
                "identity": self.retriever.identity,
                "name": self.retriever.name,
                "degraded": self._degraded(),
            }
        return identities

    def _degraded(self) -> list[str]:
        """What the retriever could not do as intended, and what it left out."""
        return [str(what) for what in getattr(self.retriever, "degraded", ())]


@dataclass
class VerifierPool:
    """Entailment models and retrievers by name, shared by many runs and closed together."""

    entailments: dict[str, Entailment] = field(default_factory=dict)
    retrievers: dict[tuple[str, ...], Retriever] = field(default_factory=dict)

    @staticmethod
    def resolve_judge(name: str, settings: Settings, *, has_judge_model: bool) -> str:
        """The name of the judge that a name stands for (see `resolve_judge`)."""
        return resolve_judge(name, settings, has_judge_model=has_judge_model)

    async def load(
        self,
        config: RunConfig,
        verifiers: Sequence[Verifier],
        settings: Settings,
        progress: Progress | None,
        strategy_judge: str = "",
    ) -> EntailmentResources:
        """The resources of a run's verifiers and of its strategy.

        Args:
            strategy_judge: The name of the judge that the strategy requests; empty if none.

        Raises:
            ReasonError: A judge, a document or an index cannot be opened.
        """
        used: dict[str, Entailment] = {}
        for verifier in verifiers:
            if isinstance(verifier, PreparesItself):
                await verifier.prepare()
            if verifier.entailment not in BUILT_IN_JUDGES:
                used[verifier.entailment] = await self._entailment(verifier.entailment, settings, progress)
        if strategy_judge not in ("", *BUILT_IN_JUDGES, *used):
            with suppress(UserError, BackendUnavailable):  # a strategy works without it and says so
                used[strategy_judge] = await self._entailment(strategy_judge, settings, progress)
        retrievers: list[Retriever] = []
        if verifiers and config.evidence:
            from ...reasoning.retrieval.sources.directory import evidence_groups

            groups = await evidence_groups(config.evidence)
            retrievers = [await self._retriever(names, settings, progress) for names in groups]
        retriever = retrievers[0] if retrievers else None
        if len(retrievers) > 1:
            from ...reasoning.retrieval.retriever import CombinedRetriever

            retriever = CombinedRetriever(retrievers)
        return EntailmentResources(used, retriever, strategy_judge)

    def recorded(self, record: RunRecord, config: RunConfig, strategy_judge: str = "") -> EntailmentResources:
        """The resources of a stored run, which answer from the run store only.

        Raises:
            DataError: The record is damaged.
        """
        try:
            is_stopped = record.answer is not None and _was_stopped(Answer.model_validate(record.answer))
            limit: LimitKind | None = "seconds" if is_stopped and config.budget.seconds is not None else None
            entailments: dict[str, Entailment] = {}
            for role, recorded in record.identities.items():
                if role.startswith("entailment:") and isinstance(recorded, dict):
                    name = role.removeprefix("entailment:")
                    is_finished = record.status == "finished"
                    stub = RecordedEntailment(name, str(recorded["identity"]), limit=limit, finished=is_finished)
                    stub.max_words = None if (words := recorded["max_words"]) is None else int(str(words))
                    entailments[name] = stub
            retriever = None
            if isinstance(recorded := record.identities.get("retriever"), dict):
                from ...reasoning.retrieval.retriever import RecordedRetriever

                notes = recorded.get("degraded")
                degraded = tuple(map(str, notes)) if isinstance(notes, list) else ()
                retriever = RecordedRetriever(str(recorded["name"]), str(recorded["identity"]), degraded)
        except (KeyError, TypeError, ValueError) as e:
            raise DataError(f"the record of run {record.id} is damaged: {e!r}") from e
        return EntailmentResources(entailments, retriever, strategy_judge)

    async def aclose(self) -> None:
        """Close everything; idempotent."""
        loaded: list[Entailment | Retriever] = [*self.entailments.values(), *self.retrievers.values()]
        self.entailments.clear()
        self.retrievers.clear()
        for one in loaded:
            await one.aclose()

    async def _entailment(self, name: str, settings: Settings, progress: Progress | None) -> Entailment:
        if name not in self.entailments:
            self.entailments[name] = await load_entailment(name, settings, progress=progress)
        return self.entailments[name]

    async def _retriever(self, names: tuple[str, ...], settings: Settings, progress: Progress | None) -> Retriever:
        if names not in self.retrievers:
            from ...reasoning.retrieval.sources.directory import load_retriever

            self.retrievers[names] = await load_retriever(names, settings, progress)
        return self.retrievers[names]


def _was_stopped(answer: Answer) -> bool:
    """Whether a limit ended the run, or kept its verifiers from claims."""
    verification = answer.verification
    return answer.stopped == "budget" or (
        verification is not None and any(c.verdict == "unchecked" for c in verification.claims)
    )
