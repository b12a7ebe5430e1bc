"""`Reasoner`: the SDK. It opens models and the run store, and takes questions through the pipeline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ..core.answer import Answer
from ..core.budget import Budget
from ..core.calibration import CalibrationMap
from ..core.errors import UserError
from ..core.event_sinks import LiveSink
from ..core.events import EventFields, Sink
from ..core.open_store import open_store
from ..core.question import Document, Question
from ..core.run import Run, RunConfig, new_run_id
from ..core.settings import Settings, load_settings
from ..core.store import RunRecord, RunStore
from ..core.unbroken import to_its_end
from ..reasoning.knowledge import Knowledge
from ..reasoning.strategy import make_strategy
from ..serving.model import LanguageModel
from ..serving.open import open_model
from ..serving.pulling import Progress
from ..serving.rewards import RewardModel, open_reward
from .asked import check_question, read_config, refuse_changed
from .calibrated import NO_MAP, chosen_map, refuse_other_model
from .chosen_models import refuse_idle_models
from .graph_on_demand import GraphOnDemand
from .journey import Journey
from .knowledge import (
    OpenedKnowledge,
    Source,
    changed,
    name_of,
    recorded_knowledge,
    refuse_namesakes,
    refuse_unused,
)
from .opened_models import OpenedModels
from .planning import Planner
from .portal import Portal
from .recorded_models import recorded_models
from .turn import Turn
from .verifying import OpenedVerifying, Verifying, compares_with, complete_parameters, recorded_verifying


class Reasoner:
    """Answers questions with one choice of models, strategy and limits.

    Models and store are opened at the first question and kept until `aclose`. Use it from one event loop, or through
    the synchronous methods from any thread; questions may run at the same time.

        async with Reasoner(strategy="self-consistency", budget={"tokens": 2000}) as reasoner:
            answer = await reasoner.aask("What is the capital of France?")

    Args:
        model: The main model; None is the setting.
        strategy: Name of the strategy; None is the setting.
        small_model: The model for small steps.
        judge_model: The model that judges.
        reward_model: The model that scores steps, for example `judge/local/smollm2-135m`.
        jurors: The models of a jury, one a juror; a model that is named twice is two jurors.
        chair_model: The model that makes one answer of the jurors'.
        parameters: Parameters of the strategy that differ from the settings.
        verify: Names of verifiers.
        verify_parameters: Parameters of verifiers that differ from the settings, by verifier.
        evidence: Where verifiers look for evidence: files, folders and saved indexes; None is the setting. The
            question's own documents are looked at in any case.
        repairs: How often an answer that did not pass goes back to the strategy; None is the setting.
        require_verified: Raise `NotVerified` for an answer that the verifiers do not support.
        budget: Limits of each question.
        seed: Seed of each question; None draws one and records it.
        calibration: The strategy's calibration map, or its file; None is the setting, "none" is no map.
        context: Where the strategy looks things up: folders and the like by the words that open them (see
            `reasoning.brains.opening`), brains of your own, or functions from a text and a number to snippets; None is
            the setting. They are closed with the reasoner.
        memory: Name of a memory that the strategy recalls, and that `coat` adds to; None is the setting.
        settings: Settings instead of those of environment and files.
        progress: Told how far a model's files are that must be fetched first; called from another thread.

    Attributes:
        settings: The settings, with what was given.
        verify_parameters: The parameters of each verifier, complete.

    Raises:
        UserError: Something of this is not allowed; says what.
        DataError: The calibration map cannot be read.
    """

    def __init__(
        self,
        model: str | None = None,
        strategy: str | None = None,
        *,
        small_model: str | None = None,
        judge_model: str | None = None,
        reward_model: str | None = None,
        jurors: Sequence[str] | None = None,
        chair_model: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        verify: Sequence[str] | None = None,
        require_verified: bool = False,
        verify_parameters: Mapping[str, Mapping[str, Any]] | None = None,
        evidence: Sequence[str | Path] | None = None,
        repairs: int | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        seed: int | None = None,
        calibration: CalibrationMap | Path | str | None = None,
        context: Sequence[Source] | None = None,
        memory: str | None = None,
        settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._progress = progress
        given = _given(
            model=model,
            strategy=strategy,
            small_model=small_model,
            judge_model=judge_model,
            reward_model=reward_model,
            jurors=None if jurors is None else tuple(jurors),
            chair_model=chair_model,
            verify=None if verify is None else tuple(verify),
            evidence=None if evidence is None else tuple(map(str, evidence)),
            repairs=repairs,
            budget=budget.model_dump() if isinstance(budget, Budget) else budget,
            seed=seed,
            memory=memory,
            context=None if context is None else tuple(map(name_of, context)),
        )
        before = {} if settings is None else settings.model_dump()
        self.settings = load_settings(**{**before, **given})
        refuse_unused(self.settings.strategy, context or (), memory or "")
        refuse_namesakes(self.settings.context if context is None else context)
        self._sources: tuple[Source, ...] = tuple(context or ())
        self._require_verified = require_verified
        chosen = {**self.settings.strategies.get(self.settings.strategy, {}), **(parameters or {})}
        _, self._parameters = make_strategy(self.settings.strategy, chosen)
        self.verify_parameters = complete_parameters(self.settings.verify, self.settings.verifiers, verify_parameters)
        refuse_idle_models(self.settings, self.verify_parameters, given)
        if require_verified and not self.settings.verify:
            raise UserError("a verified answer is required but no verifier is named", hint="name one with verify")
        self._calibration = chosen_map(self.settings, calibration)
        self._planner = Planner(
            self.settings, self._parameters, self.verify_parameters, require_verified, self._calibration
        )
        self._opening = threading.Lock()
        self._models = OpenedModels(
            lambda *how: open_model(*how), lambda *how: open_reward(*how), self.settings, progress, self._opening
        )
        self._knowledge = OpenedKnowledge()
        self._verifying = OpenedVerifying()
        self._store: RunStore | None = None
        self._graph = GraphOnDemand(None)
        self._borrowing = False
        self._portal = Portal()

    # -- asking

    async def aask(
        self,
        question: str | Question,
        *,
        choices: Sequence[str] = (),
        documents: Sequence[Document] = (),
        seed: int | None = None,
        run_id: str | None = None,
        sinks: Sequence[Sink] = (),
        stream_text: bool = False,
    ) -> Answer:
        """Answer a question.

        A spent budget is no error: the best answer so far comes back with `stopped="budget"`. Cancelling the task saves
        the run as it is, with its best answer so far, and `aresume` goes on with it.

        Args:
            question: The question, or its text.
            choices: Options of a multiple-choice question.
            documents: Texts that the answer may rest on.
            seed: Seed of this question.
            run_id: Name of the run; None makes one.
            sinks: Hear of every event.
            stream_text: Whether the sinks hear of text as it is generated.

        Raises:
            UserError: The question is empty or too long, or the calibration map is for another model.
            BackendError: The model failed altogether.
            NotVerified: A verified answer is required and this one is not.
        """
        config = self.plan(question, choices=choices, documents=documents, seed=seed)
        return await self.arun(config, run_id=run_id, sinks=sinks, stream_text=stream_text)

    def plan(
        self,
        question: str | Question,
        *,
        choices: Sequence[str] = (),
        documents: Sequence[Document] = (),
        **differing: Any,
    ) -> RunConfig:
        """The configuration of a run, which `arun` takes: what `aask` would do, but for what differs.

        It opens nothing and reads no files (but a calibration map, once), so that it is cheap.

        Args:
            question: The question, or its text.
            choices: Options of a multiple-choice question.
            documents: Texts that the answer may rest on.
            differing: What is otherwise than in this reasoner, as `Reasoner` takes it: strategy, parameters (over the
                settings' where the strategy is another), model, small_model, judge_model, jurors, chair_model, verify,
                verify_parameters, evidence, repairs, budget, seed, require_verified; and tenant, whose run it is.

        Raises:
            UserError: Something of this is not allowed; names it.
        """
        return self._planner.plan(check_question(question, choices, documents), **differing)

    async def arun(
        self,
        config: RunConfig,
        *,
        run_id: str | None = None,
        sinks: Sequence[Sink] = (),
        stream_text: bool = False,
        created: bool = False,
        fresh: bool = True,
        begun: Callable[[Run], None] = lambda _: None,
    ) -> Answer:
        """Take a run through the pipeline that is configured whole; otherwise as `aask`.

        Args:
            config: The run's configuration; of this reasoner, models and store are used, and the sources of `context`.
            run_id: See `aask`.
            sinks: See `aask`.
            stream_text: See `aask`.
            created: Whether the store has the run already, taken for this process.
            fresh: Whether nobody can have worked on it, so that the store has no replies of it.
            begun: Given the run before it sets out, for whoever steers it.
        """
        models, reward, knowledge, verifying = await self._open_all(config)
        store = await self.open_store()
        run = Run(run_id or new_run_id(), config, store, sinks=sinks, wants_text=stream_text, fresh=fresh)
        begun(run)
        if not created:
            await store.create_run(run.id, config.model_dump(mode="json"), tenant=config.tenant)
        return await Journey(run, models, self._graph, reward, knowledge, verifying).start()

    async def astream(
        self,
        question: str | Question,
        *,
        choices: Sequence[str] = (),
        documents: Sequence[Document] = (),
        seed: int | None = None,
        run_id: str | None = None,
    ) -> AsyncGenerator[EventFields, None]:
        """Answer a question and tell everything that happens, text as it is generated included.

        Takes what `aask` takes. The last event is `RunFinished` with the answer. Closing the generator early cancels
        the run; a loop that may be left early stands in `contextlib.aclosing`, so that it is closed at once.

        Raises:
            ReasonError: As `aask`, after the events so far.
        """
        live = LiveSink()
        config = self.plan(question, choices=choices, documents=documents, seed=seed)
        work = asyncio.ensure_future(self.arun(config, run_id=run_id, sinks=(live,), stream_text=True))
        work.add_done_callback(lambda _: live.close())
        try:
            async for event in live:
                yield event
            await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def aresume(
        self,
        run_id: str,
        *,
        sinks: Sequence[Sink] = (),
        stream_text: bool = False,
        taken: bool = False,
        begun: Callable[[Run], None] = lambda _: None,
    ) -> Answer:
        """Go on with a run that was interrupted, killed or failed; nothing that it paid for is paid again.

        Args:
            run_id: Name of the run.
            sinks: See `aask`.
            stream_text: See `aask`.
            taken: Whether this process has taken the run in the store already.
            begun: See `arun`.

        Raises:
            UnknownName: There is no such run.
            UserError: The run is finished, another process works on it, or its model has changed.
        """
        store = await self.open_store()
        record = await store.get_run(run_id)
        if record.status == "finished":
            raise UserError(f"run {record.id} is finished", hint=f"`reason runs show {record.id}` shows its answer")
        config = read_config(record)
        if not taken:
            await store.take_run(record.id, only=("queued", "running", "interrupted", "failed"))
        try:
            models, reward, knowledge, verifying = await self._open_all(config, record)
        except BaseException:
            if not taken:
                back = store.release_run(record.id, "failed" if record.status == "failed" else "interrupted")
                await to_its_end(back)
            raise
        events = await store.events(record.id)
        run = Run(
            record.id,
            config,
            store,
            sinks=sinks,
            after_events=events,
            begun=bool(record.identities),  # they are noted before the first event
            wants_text=stream_text,
        )
        begun(run)
        journey = Journey(run, models, self._graph, reward, knowledge, verifying)
        return await journey.go_on(changed(knowledge, record))

    async def areplay(self, run_id: str, *, sinks: Sequence[Sink] = ()) -> Answer:
        """Take a stored run through the pipeline again without any model: every reply comes from the store.

        Raises:
            UnknownName: There is no such run.
            StoreError: The run asks for something that it never got a reply to (it was interrupted).
        """
        store = await self.open_store()
        record = await store.get_run(run_id)
        config = read_config(record)
        out_of_time = config.budget.seconds is not None
        models, reward = recorded_models(record, config, out_of_time=out_of_time)
        timeless = config.model_copy(
            update={"budget": config.budget.model_copy(update={"seconds": None}), "reuse": "run"}
        )
        run = Run(record.id, timeless, store, sinks=sinks, recording=False)
        knowledge = recorded_knowledge(record, out_of_time=out_of_time)
        return await Journey(
            run, models, GraphOnDemand(None), reward, knowledge, recorded_verifying(record, config)
        ).start()

    async def variant(
        self,
        strategy: str | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        calibration: CalibrationMap | Path | str | None = None,
        verify: Sequence[str] | None = None,
        context: Sequence[Source] | None = None,
    ) -> Reasoner:
        """A reasoner with another strategy, limits, verifiers or knowledge over the same opened models and store.

        It is used while this one is open and closed with it; closing it alone does nothing.

        Args:
            strategy: Name of the strategy; None is this one's.
            parameters: Parameters of the strategy that differ from the settings.
            budget: Limits of each question; None are this one's.
            calibration: The strategy's calibration map, as for a `Reasoner`; None is this one's for the same strategy.
            verify: Names of verifiers; None are this one's.
            context: What the strategy asks for knowledge, as for a `Reasoner`; None is this one's.
        """
        if calibration is None and strategy in (None, self.settings.strategy):
            calibration = self._calibration or NO_MAP
        other = Reasoner(
            strategy=strategy,
            parameters=parameters,
            verify=verify,
            budget=budget,
            require_verified=self._require_verified,
            verify_parameters=self.verify_parameters,
            calibration=calibration,
            context=context,
            settings=self.settings,
            progress=self._progress,
        )
        other._store, other._graph, other._opening = await self.open_store(), self._graph, self._opening
        other._models, other._knowledge, other._verifying = self._models, self._knowledge, self._verifying
        other._sources = self._sources if context is None else other._sources
        other._borrowing = True
        return other

    # -- the same for callers that are not asynchronous

    def ask(self, question: str | Question, **options: Any) -> Answer:
        """`aask` for callers that are not asynchronous; works inside a running event loop (notebooks) too."""
        return self._portal.call(lambda: self.aask(question, **options))

    def resume(self, run_id: str, **options: Any) -> Answer:
        """`aresume` likewise."""
        return self._portal.call(lambda: self.aresume(run_id, **options))

    def replay(self, run_id: str, **options: Any) -> Answer:
        """`areplay` likewise."""
        return self._portal.call(lambda: self.areplay(run_id, **options))

    def close(self) -> None:
        """`aclose` likewise."""
        self._portal.call(self.aclose)
        self._portal.close()

    # -- models and store

    async def open(self) -> None:
        """Open models and store that the settings name now, not at the first question."""
        await self.open_store()
        await self._models.open(self.plan("?"))

    def opened_models(self) -> frozenset[str]:
        """Strings of the models that are open."""
        return self._models.names()

    async def open_store(self) -> RunStore:
        """The run store, which is closed with the reasoner."""
        if self._store is None:
            async with Turn(self._opening):
                if self._store is None:
                    self._store = await open_store(self.settings.store)
                    self._graph = GraphOnDemand(self._store)
        return self._store

    async def aclose(self) -> None:
        """Close models and store; idempotent."""
        if self._borrowing:
            return
        store, self._store, self._graph = self._store, None, GraphOnDemand(None)
        await self._knowledge.aclose()
        await self._verifying.aclose()
        await self._models.aclose()
        if store is not None:
            await store.aclose()

    async def __aenter__(self) -> Reasoner:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Reasoner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _open_all(
        self, config: RunConfig, record: RunRecord | None = None
    ) -> tuple[dict[str, LanguageModel], RewardModel | None, Knowledge, Verifying]:
        """What a run works with; refused where a model is not the one that a stored run, or the map, is for."""
        models, reward = await self._models.open(config)
        knowledge = await self._open_knowledge(config, record)
        verifying = await self._open_verifying(config)
        if record is not None:
            refuse_changed(record, models if reward is None else {**models, "reward": reward})
        if config.calibration is not None:
            refuse_other_model(config, models["main"].identity)
        return models, reward, knowledge, verifying

    async def _open_knowledge(self, config: RunConfig, record: RunRecord | None = None) -> Knowledge:
        """What the run knows beside its models; nothing where its strategy has no use for it."""
        if not (config.context or config.memory or "embedding" in config.models):
            return Knowledge()
        async with Turn(self._opening):
            return await self._knowledge.open(
                config,
                self.settings,
                self._sources,
                lambda name: self._models.language_model(name, config.local),
                self._progress,
                record,
            )

    async def _open_verifying(self, config: RunConfig) -> Verifying:
        """What verifies the run's answers; nothing where no verifier is named and no strategy compares."""
        if not (config.verify or compares_with(config.strategy, config.parameters, config.question)):
            return Verifying()  # without waiting for others who open something
        async with Turn(self._opening):
            return await self._verifying.open(config, self.settings, self._progress)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
