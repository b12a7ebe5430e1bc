"""The SDK: `Reasoner` answers questions; `ask`, `aask` and `astream` answer one question without keeping it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from ..core.budget import Budget
from ..core.calibration import CalibrationMap
from ..core.concurrency import CrossLoopLock, gather, shielded
from ..core.errors import UserError, names_run
from ..core.events import Event, LiveSink, RunFinished, Sink
from ..core.files import Progress
from ..core.json_schema import check_schema
from ..core.messages import ApprovalMode, Effort, Prompt
from ..core.run import Run, RunConfig, find_conclusion, new_run_id, read_config
from ..core.settings import Settings, load_settings
from ..core.store import open_store
from ..core.store.records import NewRun, RunRecord
from ..core.store.sql import RunStore
from ..core.sync_bridge import SyncBridge
from ..core.types import Answer, Document, Question
from ..reasoning.knowledge import Knowledge, SourceLike, source_name
from ..reasoning.strategy import RESOURCES, STRATEGIES, Strategy, requested_entailment, strategy_config
from ..serving.factory import load_model
from ..serving.model import LanguageModel
from ..serving.rewards.model import RewardModel
from ..verify.verifier import make_verifiers
from .loop.executor import Approver
from .loop.records import Decision, ToolCallStore, decide
from .loop.state import LoopState
from .loop.tool import ExecutableTool, tool_spec
from .pipeline import PipelineRun, StepEnded
from .planner import (
    DOCUMENTS,
    GIVEN,
    NO_MAP,
    Planner,
    calibration_map_for,
    check_options,
    check_question,
    complete_parameters,
    refuse_duplicate_sources,
    refuse_missing_evidence,
    refuse_other_model,
    refuse_unsuitable_effort,
    refuse_unused_knowledge,
    uses_role,
)
from .resources import (
    ModelPool,
    ProviderPool,
    RunResources,
    ToolLike,
    load_reward_model,
    load_tools,
    recorded_models,
    recorded_tools,
)

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

    from ..serving.token_counts import PromptCount, TokenCounter
    from .conversation import Conversation


async def _check_schema(question: str | Question) -> None:
    if isinstance(question, Question) and question.answer_schema is not None:
        await asyncio.to_thread(check_schema, question.answer_schema, "answer_schema")


class Reasoner:
    """Answers questions with one choice of models, strategy and limits.

    Models and store are opened at the first question and kept until `aclose`. The synchronous methods may be called
    from any thread, also where an event loop runs, and next to the asynchronous ones; questions may run concurrently.

        async with Reasoner(strategy="self-consistency", budget={"tokens": 2000}) as reasoner:
            answer = await reasoner.aask("What is the capital of France?")

    Args:
        model: The main model. Here and below, None is the setting.
        small_model: The model for small steps.
        judge_model: The model that judges.
        reward_model: The model that scores steps, for example `judge/local/smollm2-135m`.
        jurors: The models of a jury, one per juror; a model named twice is two jurors.
        parameters: Parameters of the strategy that differ from the settings.
        verify: Names of verifiers.
        verify_parameters: Parameters of verifiers that differ from the settings, by verifier.
        evidence: Where verifiers retrieve evidence: files, directories and saved indexes. The question's own documents
            are always searched.
        repairs: How often an answer that did not pass goes back to the strategy.
        require_verified: Raise `NotVerified` for an answer that the verifiers do not support.
        budget: Limits of each question.
        seed: Seed of each question; None chooses one and records it.
        effort: How much models that think do so before they answer: "none", "minimal", "low", "medium", "high" or
            "max".
        thinking_tokens: Maximum tokens of each thought.
        calibration: The strategy's calibration map, or its file; "none" is no map.
        context: Knowledge sources of the strategy: directories, addresses and the like by their descriptions, sources
            of your own, or functions from a text and a number to snippets. They are closed with the reasoner.
        memory: Name of a memory that the strategy recalls, and that `coat` extends.
        tools: Tools that the model may call, and this process executes: functions, `ExecutableTool`s, and strings as of
            `--tool` ("python", "documents", "module:function", "mcp:COMMAND", …).
        approve: Which calls need an approval: "never" none, "guard" changes that no sentence of the user asks for once
            a result has been read, "writes" all that change something, "all".
            Default with an approver: "writes".
        check_writes: Whether calls that change something are executed only if the judge model quotes words of the user
            that ask for them.
        policy: File with a policy of which it has to quote words that allow them too; implies `check_writes`.
        trajectories: Number of loops that a run with tools is made by, of which one is chosen.
        select: The rule that chooses: "race", "ended-fewest-calls", "agreement", "judge" or "tests". Default:
            "ended-fewest-calls" if tools change something in a `World`, such as the shell, "agreement" if others do,
            else "race".
        approver: Asks for decisions about tool calls. Without one, a run with a call that needs a decision ends with
            `stopped="waiting"`, and `aresume` continues it.
        settings: Settings instead of those of environment and files.
        progress: Receives the progress of downloads of model files; called from another thread.

    Attributes:
        settings: The settings, with the arguments applied.

    Raises:
        UserError: An argument is not allowed; says which.
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
        parameters: Mapping[str, Any] | None = None,
        verify: Sequence[str] | None = None,
        require_verified: bool = False,
        verify_parameters: Mapping[str, Mapping[str, Any]] | None = None,
        evidence: Sequence[str | Path] | None = None,
        repairs: int | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        seed: int | None = None,
        effort: Effort | None = None,
        thinking_tokens: int | None = None,
        calibration: CalibrationMap | Path | str | None = None,
        context: Sequence[SourceLike] | None = None,
        memory: str | None = None,
        tools: Sequence[ToolLike] | None = None,
        approve: ApprovalMode | None = None,
        check_writes: bool | None = None,
        policy: str | Path | None = None,
        trajectories: int | None = None,
        select: str | None = None,
        approver: Approver | None = None,
        settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._progress = progress
        overrides = _without_none(
            model=model,
            strategy=strategy,
            small_model=small_model,
            judge_model=judge_model,
            reward_model=reward_model,
            jurors=None if jurors is None else tuple(jurors),
            verify=None if verify is None else tuple(verify),
            evidence=None if evidence is None else tuple(map(str, evidence)),
            repairs=repairs,
            budget=budget.model_dump() if isinstance(budget, Budget) else budget,
            seed=seed,
            effort=effort,
            thinking_tokens=thinking_tokens,
            memory=memory,
            context=None if context is None else tuple(map(source_name, context)),
        )
        base = {} if settings is None else settings.model_dump()
        chosen = load_settings(**{**base, **overrides})
        tool_settings = _without_none(
            use=None if tools is None else tuple(map(tool_spec, tools)),
            approve=approve,
            check_writes=check_writes,
            policy=None if policy is None else Path(policy),
            trajectories=trajectories,
            select=select,
        )
        chosen = chosen.model_copy(update={"tools": chosen.tools.model_copy(update=tool_settings)})
        if trajectories is not None or select is not None:
            check = RESOURCES.load("trajectories").check_trajectories
            check(chosen.tools.trajectories, chosen.tools.select, Question(text="?"), chosen.tools.use)
        self._tools, self._approver = tuple(tools or ()), approver
        refuse_unused_knowledge(chosen.strategy, context or (), memory or "", chosen.tools.use)
        refuse_duplicate_sources(chosen.context if context is None else context)
        self._sources: tuple[SourceLike, ...] = tuple(context or ())
        self._require_verified = require_verified
        own = strategy_config(chosen.strategy, {**chosen.strategies.get(chosen.strategy, {}), **(parameters or {})})
        verifiers = complete_parameters(chosen.verify, chosen.verifiers, verify_parameters)
        self.settings = chosen.model_copy(
            update={
                "strategies": {**chosen.strategies, chosen.strategy: own.model_dump(mode="json")},
                "verifiers": {**chosen.verifiers, **verifiers},
            }
        )
        self._calibration = calibration_map_for(self.settings, calibration)
        self._planner = Planner(self.settings, require_verified, self._calibration, has_approver=approver is not None)
        own_tools = chosen.tools
        needs_judge = own_tools.check_writes or own_tools.policy is not None or own_tools.select == "judge"
        check_options(self.settings, verifiers, overrides, require_verified=require_verified, needs_judge=needs_judge)
        self._lock = threading.Lock()
        self._models = ModelPool(
            lambda *args: load_model(*args), lambda *args: load_reward_model(*args), self.settings, progress, self._lock
        )
        self._providers = ProviderPool()
        self._store: RunStore | None = None
        self._is_variant = False
        self._in_flight: dict[str, _RunInFlight] = {}
        self._counter: TokenCounter | None = None
        self._bridge = SyncBridge()

    # -- answering

    async def aask(
        self,
        question: str | Question,
        *,
        choices: Sequence[str] = (),
        documents: Sequence[Document] = (),
        run_id: str | None = None,
        sinks: Sequence[Sink] = (),
        stream_text: bool = False,
        **options: Any,
    ) -> Answer:
        """Answer a question.

        A spent budget is no error: the best answer so far comes back with `stopped="budget"`, and after `conclude` with
        `stopped="user"`. Cancelling the task saves the run with its best answer so far, and `aresume` continues it;
        `interrupted_run` reads the run's name from the exception.

        Args:
            choices: Options of a multiple-choice question.
            documents: Texts that the answer may use.
            run_id: Name of the run; None creates one.
            sinks: Receive every event.
            stream_text: Whether the sinks receive text as it is generated.
            options: What differs for this question, as in `plan`: seed, effort, budget and others.

        Raises:
            UserError: The question is empty or too long, its schema is none, the calibration map is for another model,
                or the main model cannot have the effort or take the limit of thoughts.
            BackendError: Every model call failed.
            NotVerified: A verified answer is required and this one is not.
        """
        await _check_schema(question)
        config = self.plan(question, choices=choices, documents=documents, **options)
        return await self.arun(config, run_id=run_id, sinks=sinks, stream_text=stream_text)

    def plan(
        self,
        question: str | Question,
        *,
        choices: Sequence[str] = (),
        documents: Sequence[Document] = (),
        **options: Any,
    ) -> RunConfig:
        """The configuration of a run for `arun`. It opens nothing, and reads no files but a calibration map, once.

        Args:
            choices: Options of a multiple-choice question.
            documents: Texts that the answer may use.
            options: What differs from this reasoner, with the names of its arguments: strategy, parameters (over the
                settings' if the strategy differs), model, small_model, judge_model, jurors, verify, verify_parameters,
                evidence, repairs, budget, seed, effort, thinking_tokens, require_verified, approve, tools (as strings),
                check_writes (the text of the policy, or ""); and tenant, the run's owner.

        Raises:
            UserError: One of them is not allowed; names it.
        """
        return self._planner.plan(check_question(question, choices, documents), **options)

    async def arun(
        self,
        config: RunConfig,
        *,
        run_id: str | None = None,
        sinks: Sequence[Sink] = (),
        stream_text: bool = False,
        is_created: bool = False,
        creation: NewRun | None = None,
        is_new: bool = True,
        on_start: Callable[[Run], None] = lambda _: None,
    ) -> Answer:
        """Run a complete configuration with this reasoner's models, store and knowledge sources; otherwise as `aask`.

        Args:
            is_created: Whether the store has the run already, claimed by this process.
            creation: How the run is created, if its name is a new one (`new_run_id`) and nobody was told of it: with
                its first write, which is its end if it ends at once. None creates it before it starts.
            is_new: Whether the store has no calls of the run, since it never started.
            on_start: Called with the run before it starts.
        """
        if run_id is None:
            run_id, creation = new_run_id(), NewRun(config, config.tenant)
        with self._running(run_id) as in_flight:
            resources = await self._load_all(config)
            store = await self.open_store()
            run = Run(run_id, config, store, sinks=sinks, stream_text=stream_text, is_new=is_new)
            on_start(run)
            if creation is not None:
                run.writer.create(creation)
            elif not is_created:
                await store.create_run(run.id, config, tenant=config.tenant)
            in_flight.begin(run)
            with names_run(run_id):
                return await PipelineRun(run, resources, approver=self._approver).start()

    def conclude(self, run_id: str) -> bool:
        """Ask a run of this reasoner for its answer now; the call that waits for the run returns it.

        Samples in flight are cut, and the answer is made of what there is, in one short call at most
        (`Answer.stopped` "user", `Answer.based_on`). May be called from any thread. A run whose models are still being
        loaded concludes as soon as they are.

        Args:
            run_id: Name of the run, as it was given or as its events have it.

        Returns:
            Whether this reasoner is running it.
        """
        in_flight = self._in_flight.get(run_id)
        if in_flight is None:
            return False
        try:
            is_own_loop = asyncio.get_running_loop() is in_flight.loop
        except RuntimeError:
            is_own_loop = False
        if is_own_loop:
            in_flight.conclude()
        else:
            in_flight.loop.call_soon_threadsafe(in_flight.conclude)
        return True

    @contextmanager
    def _running(self, run_id: str) -> Iterator[_RunInFlight]:
        """The run among those in flight, unless another one has its name: that one keeps it, and this one will fail."""
        in_flight = _RunInFlight(asyncio.get_running_loop())
        is_listed = self._in_flight.setdefault(run_id, in_flight) is in_flight
        try:
            yield in_flight
        finally:
            if is_listed:
                del self._in_flight[run_id]

    async def astream(
        self,
        question: str | Question,
        *,
        choices: Sequence[str] = (),
        documents: Sequence[Document] = (),
        run_id: str | None = None,
        **options: Any,
    ) -> AsyncGenerator[Event, None]:
        """Answer a question and yield all its events, including text as it is generated. Arguments as `aask`.

        The last event is `RunFinished` with the answer. Closing the generator early cancels the run; wrap it in
        `contextlib.aclosing` if the loop may be left early, so that it is closed at once.

        Raises:
            ReasonError: As `aask`, after the events so far.
        """
        await _check_schema(question)
        config = self.plan(question, choices=choices, documents=documents, **options)
        async with aclosing(self.astream_run(config, run_id=run_id)) as events:
            async for event in events:
                yield event

    async def astream_run(self, config: RunConfig, *, run_id: str | None = None) -> AsyncGenerator[Event, None]:
        """Run a complete configuration and yield its events; otherwise as `astream`."""
        live = LiveSink()
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
        is_claimed: bool = False,
        on_start: Callable[[Run], None] = lambda _: None,
        assume: Literal["done", "failed"] | None = None,
        decisions: Mapping[str, Decision] | None = None,
    ) -> Answer:
        """Resume a run that was interrupted, killed or failed, or waits; no sample that it has paid for is paid again.

        Only the tokens of samples that were unfinished then are generated again (`RunUsage.lost_tokens`). A tool call
        that changes something is not executed again, whatever became of it.

        Args:
            assume: Outcome to assume for calls that change something and were interrupted: that they took effect
                ("done"), or did not ("failed"). None asks the approver, and without one the run waits.
            decisions: Decisions about pending calls, by their ids or beginnings of them.
            sinks: Receive every event from now on.
            stream_text: Whether the sinks receive text as it is generated.
            is_claimed: Whether this process has claimed the run in the store already.
            on_start: Called with the run before it starts.

        Raises:
            UnknownName: There is no such run.
            UserError: The run is finished, another process works on it, or its model has changed.
        """
        answer, _ = await self._resume(
            run_id,
            sinks=sinks,
            stream_text=stream_text,
            is_claimed=is_claimed,
            on_start=on_start,
            assume=assume,
            decisions=decisions,
        )
        assert answer is not None
        return answer

    async def run_step(
        self, run_id: str, state: LoopState, *, sinks: Sequence[Sink] = ()
    ) -> tuple[Answer | None, LoopState]:
        """Run the node of a stored run's loop that follows a state; of a run that has ended, without any call.

        Returns:
            The answer, if it was the last node or waits for decisions; and the state after the node.

        Raises:
            ReasonError: As `aresume`.
        """
        record = await (await self.open_store()).get_run(run_id, exact=True)
        if record.status != "finished":
            return await self._resume(run_id, sinks=sinks, stream_text=True, step=state)
        pipeline = await self._replay(record, step=state)
        with suppress(StepEnded):
            return await pipeline.start(), pipeline.state
        return None, pipeline.state

    async def _resume(
        self,
        run_id: str,
        *,
        sinks: Sequence[Sink],
        stream_text: bool,
        is_claimed: bool = False,
        on_start: Callable[[Run], None] = lambda _: None,
        assume: Literal["done", "failed"] | None = None,
        decisions: Mapping[str, Decision] | None = None,
        step: LoopState | None = None,
    ) -> tuple[Answer | None, LoopState]:
        store = await self.open_store()
        record = await store.get_run(run_id)
        if record.status == "finished":
            raise UserError(f"run {record.id} is finished", hint=f"`reason runs show {record.id}` shows its answer")
        config = read_config(record)
        if not is_claimed:
            await store.claim_run(record.id, allowed=("queued", "running", "waiting", "interrupted", "failed"))
        with names_run(record.id), self._running(record.id) as in_flight:
            try:
                if decisions:
                    await decide(ToolCallStore(store), record.id, decisions)
                resources = await self._load_all(config, record)
            except BaseException:
                if not is_claimed:
                    status = record.status if record.status in ("waiting", "failed") else "interrupted"
                    await shielded(store.release_run(record.id, status))
                raise
            events = await store.list_events(record.id)
            run = Run(
                record.id,
                config,
                store,
                sinks=sinks,
                previous_events=events,
                has_started=bool(record.identities),  # they are recorded before the first event
                stream_text=stream_text,
            )
            if record.answer is not None:
                run.ledger.carry_lost(Answer.model_validate(record.answer).usage)
            on_start(run)
            in_flight.begin(run)
            pipeline = PipelineRun(run, resources, approver=self._approver, assume=assume, step=step)
            ends = [event.answer for event in events if isinstance(event, RunFinished)]
            waited = next((end for end in reversed(ends) if end.stopped == "waiting"), None)
            with suppress(StepEnded):
                return await pipeline.resume(waited), pipeline.state
            return None, pipeline.state

    async def areplay(self, run_id: str, *, sinks: Sequence[Sink] = ()) -> Answer:
        """Run the pipeline of a stored run again without any model: every response comes from the store.

        Raises:
            UnknownName: There is no such run.
            StoreError: The run needs a response that is not in the store (it was interrupted).
        """
        record = await (await self.open_store()).get_run(run_id)
        return await (await self._replay(record, sinks)).start()

    async def _replay(
        self, record: RunRecord, sinks: Sequence[Sink] = (), *, step: LoopState | None = None
    ) -> PipelineRun:
        store = await self.open_store()
        config = read_config(record)
        replay_config = config.model_copy(
            update={"budget": config.budget.model_copy(update={"seconds": None}), "reuse": "run"}
        )
        is_concluded = (record.answer or {}).get("stopped") == "user"
        conclusion = find_conclusion(await store.list_events(record.id)) if is_concluded else None
        run = Run(record.id, replay_config, store, sinks=sinks, recording=False, conclusion=conclusion)
        return PipelineRun(run, self._recorded(record, config), step=step)

    async def variant(
        self,
        strategy: str | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        calibration: CalibrationMap | Path | str | None = None,
        verify: Sequence[str] | None = None,
        context: Sequence[SourceLike] | None = None,
        effort: Effort | None = None,
        thinking_tokens: int | None = None,
        tools: Sequence[ToolLike] | None = None,
        approve: ApprovalMode | None = None,
    ) -> Reasoner:
        """A reasoner with another strategy, limits, verifiers, knowledge or tools over the same models and store.

        It is used while this one is open and closed with it; closing it does nothing. For each argument, None is this
        reasoner's value; of `calibration`, if the strategy is the same.
        """
        if calibration is None and strategy in (None, self.settings.strategy):
            calibration = self._calibration or NO_MAP
        other = Reasoner(
            strategy=strategy,
            parameters=parameters,
            verify=verify,
            budget=budget,
            require_verified=self._require_verified,
            calibration=calibration,
            context=context,
            effort=effort,
            thinking_tokens=thinking_tokens,
            tools=tools,
            approve=approve,
            approver=self._approver,
            settings=self.settings,
            progress=self._progress,
        )
        other._store, other._lock = await self.open_store(), self._lock
        other._models, other._providers = self._models, self._providers
        other._sources = self._sources if context is None else other._sources
        other._tools = self._tools if tools is None else other._tools
        other._is_variant, other._in_flight = True, self._in_flight
        return other

    def conversation(
        self,
        *,
        tools: Sequence[ToolLike] | None = None,
        approve: ApprovalMode | None = None,
        system: str = "",
        budget: Budget | None = None,
        conversation_id: str | None = None,
    ) -> Conversation:
        """A conversation of several questions, for `async with`; see `Conversation`.

        Args:
            tools: Its tools. Here and below, None is the reasoner's.
            approve: Which of their calls need an approval.
            budget: Limits of all its questions together.
            conversation_id: ID of a stored conversation, which is continued; None begins a new one.
        """
        from .conversation import Conversation

        return Conversation(
            self,
            conversation_id or f"conv-{new_run_id()}",
            system=system,
            budget=budget,
            tools=tools,
            approve=approve,
        )

    def graph(
        self, *, tools: Sequence[ToolLike] | None = None, **options: Any
    ) -> CompiledStateGraph[Any, Any, Any, Any]:
        """Runs of this reasoner as a LangGraph graph over `messages`: a Runnable, and a node and subgraph of graphs.

        Its nodes are those of the loop: `model`, `approve`, `tools` and `verify`. Of a thread, each new user message is
        a run. With a checkpointer (of the graph around it, or of `copy({"checkpointer": …})`), calls that need
        an approval interrupt the graph, as those of LangChain's human-in-the-loop middleware do; resume it with
        `Command(resume={"decisions": [{"type": "approve"}]})`, in another process too. An older checkpoint repeats no
        call; with other messages, it begins a new run. `stream_mode="messages"` streams text, and "custom" the run's
        events.

        Args:
            tools: The tools instead of the reasoner's.
            options: As of `plan`. `approve` is "writes" unless it is set.
        """
        has_tools = self.settings.tools.use if tools is None else tools
        if has_tools and self.settings.tools.approve is None:
            options = {"approve": "writes", **options}
        graph: CompiledStateGraph[Any, Any, Any, Any] = RESOURCES.load("graph")(self, tools, options)
        return graph

    # -- for synchronous callers

    def ask(self, question: str | Question, **options: Any) -> Answer:
        """`aask` for synchronous callers; works inside a running event loop (notebooks) too."""
        return self._bridge.call(lambda: self.aask(question, **options))

    def resume(self, run_id: str, **options: Any) -> Answer:
        """`aresume` for synchronous callers."""
        return self._bridge.call(lambda: self.aresume(run_id, **options))

    def replay(self, run_id: str, **options: Any) -> Answer:
        """`areplay` for synchronous callers."""
        return self._bridge.call(lambda: self.areplay(run_id, **options))

    def close(self) -> None:
        """`aclose` for synchronous callers."""
        self._bridge.call(self.aclose)
        self._bridge.close()

    # -- models and store

    async def load(self, tools: Sequence[str] = ()) -> None:
        """Load the models of the settings, and open their store and tools, now instead of at the first question.

        Args:
            tools: Further tools to open, which questions may name.

        Raises:
            ReasonError: One of them cannot be opened.
        """
        await self.open_store()
        config = self.plan("?", approve="writes")
        await self._models.load(config)
        if config.tools:
            await load_tools(config, self.settings, self._tools, self._providers, None)
        await gather(self._providers.tools.open(spec, self.settings, config.context) for spec in tools)

    def loaded_models(self) -> frozenset[str]:
        """Strings of the loaded models."""
        return self._models.names()

    async def count_tokens(self, prompt: Prompt, model: str | None = None) -> PromptCount:
        """Tokens of a prompt with the model's chat template, exact where the model lets them be counted.

        Args:
            model: The model, which is loaded if it is not; None is the setting.
        """
        async with CrossLoopLock(self._lock):
            loaded = await self._models.language_model(model or self.settings.model, self.settings.local)
        from ..serving.token_counts import TokenCounter

        self._counter = self._counter or TokenCounter()
        return await self._counter.count(loaded, prompt)

    async def open_store(self) -> RunStore:
        """The run store, opened at first use and closed with the reasoner."""
        if self._store is None:
            async with CrossLoopLock(self._lock):
                if self._store is None:
                    self._store = await open_store(self.settings.store)
        return self._store

    async def aclose(self) -> None:
        """Close models and store; idempotent."""
        if self._is_variant:
            return
        store, self._store = self._store, None
        async with AsyncExitStack() as stack:  # which closes the rest too if a part of it fails
            if store is not None:
                stack.push_async_callback(store.aclose)
            stack.push_async_callback(self._models.aclose)
            stack.push_async_callback(self._providers.aclose)

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

    async def _load_all(self, config: RunConfig, record: RunRecord | None = None) -> RunResources:
        """What a run works with; refused if a model differs from the stored run's, or from the calibration map's."""
        if config.evidence:
            await asyncio.to_thread(refuse_missing_evidence, config.evidence)
        strategy, judge = _strategy_of(config)
        verifiers = make_verifiers(config.verify, config.verify_parameters)
        models, reward = await self._models.load(config)
        knowledge, verifying = Knowledge(), None
        if _uses_knowledge(config) or verifiers or judge:  # else without waiting for the lock
            async with CrossLoopLock(self._lock):
                if _uses_knowledge(config):
                    knowledge = await self._providers.knowledge.load(
                        config,
                        self.settings,
                        self._sources,
                        self._progress,
                        record,
                    )
                if verifiers or judge:
                    verifying = await self._providers.verification.load(
                        config, verifiers, self.settings, self._progress, judge
                    )
        tools: dict[str, ExecutableTool] = {}
        notes: list[str] = []
        if config.tools:
            async with CrossLoopLock(self._lock):
                tools, notes = await load_tools(config, self.settings, self._tools, self._providers, record)
        resources = RunResources(models, strategy, reward, knowledge, verifiers, verifying, tools, notes)
        if record is not None:
            _refuse_changed_models(record, resources.by_role())
        if config.calibration is not None:
            refuse_other_model(config, models["main"].identity)
        if "main" in models:
            refuse_unsuitable_effort(config, models["main"].name, models["main"].capabilities.profile)
        return resources

    def _recorded(self, record: RunRecord, config: RunConfig) -> RunResources:
        """What a replay works with: recorded responses under recorded identities."""
        has_time_limit = config.budget.seconds is not None
        strategy, judge = _strategy_of(config)
        verifiers = make_verifiers(config.verify, config.verify_parameters)
        models, reward = recorded_models(record, config, has_time_limit=has_time_limit)
        knowledge, verifying = Knowledge(), None
        if _uses_knowledge(config):
            knowledge = self._providers.knowledge.recorded(record, has_time_limit=has_time_limit)
        if verifiers or judge:
            verifying = self._providers.verification.recorded(record, config, judge)
        tools, _ = recorded_tools(record, {})
        return RunResources(models, strategy, reward, knowledge, verifiers, verifying, tools)


def _strategy_of(config: RunConfig) -> tuple[Strategy | None, str]:
    """A run's strategy, and the judge that it requests; none of a run whose answer is given."""
    if config.strategy == GIVEN:
        return None, ""
    parameters = strategy_config(config.strategy, config.parameters)
    judge = requested_entailment(config.strategy, parameters, config.question)
    return STRATEGIES.load(config.strategy)(parameters), judge


def _uses_knowledge(config: RunConfig) -> bool:
    has_context = bool(config.context) and (DOCUMENTS not in config.tools or uses_role(config.strategy, "knowledge"))
    return has_context or bool(config.memory or "embedding" in config.models)


def _refuse_changed_models(record: RunRecord, models: Mapping[str, LanguageModel | RewardModel]) -> None:
    """Refuse to resume a run with other models than it began with."""
    for role, model in models.items():
        recorded = record.identities.get(role)
        if isinstance(recorded, dict) and recorded.get("identity") != model.identity:
            raise UserError(
                f"model {model.name} is not the one that run {record.id} began with", hint="ask the question again"
            )


class _RunInFlight:
    """A run between the call that wants it and its end; the user may want its answer before it has begun."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._run: Run | None = None
        self._wants_answer = False

    def conclude(self) -> None:
        """Conclude the run, or remember that it is to conclude."""
        self._wants_answer = True
        if self._run is not None:
            self._run.conclude()

    def begin(self, run: Run) -> None:
        """The run, whose models are loaded now."""
        self._run = run
        if self._wants_answer:
            run.conclude()


def _without_none(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


async def aask(
    question: str | Question, *, choices: Sequence[str] = (), documents: Sequence[Document] = (), **options: Any
) -> Answer:
    """Answer one question. It opens models and store and closes them again: for several questions keep a `Reasoner`.

    Args:
        choices: Options of a multiple-choice question.
        documents: Texts that the answer may use.
        options: Arguments of `Reasoner`.

    Raises:
        ReasonError: As `Reasoner` and `Reasoner.aask`.
    """
    async with Reasoner(**options) as reasoner:
        return await reasoner.aask(question, choices=choices, documents=documents)


async def astream(
    question: str | Question, *, choices: Sequence[str] = (), documents: Sequence[Document] = (), **options: Any
) -> AsyncIterator[Event]:
    """Answer one question and yield all its events; the last one has the answer. Otherwise as `aask`."""
    async with (
        Reasoner(**options) as reasoner,
        aclosing(reasoner.astream(question, choices=choices, documents=documents)) as events,
    ):
        async for event in events:
            yield event


def ask(
    question: str | Question, *, choices: Sequence[str] = (), documents: Sequence[Document] = (), **options: Any
) -> Answer:
    """`aask` for synchronous callers; works inside a running event loop (notebooks) too."""
    with Reasoner(**options) as reasoner:
        return reasoner.ask(question, choices=choices, documents=documents)
