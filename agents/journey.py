"""`Journey`: one run through the pipeline, from its start or its last checkpoint to its end, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from ..core.answer import Answer, Candidate, Solution
from ..core.errors import NotVerified, ReasonError
from ..core.events import RunFailed, RunFinished, RunStarted
from ..core.run import Run
from ..core.store import RunStatus
from ..core.unbroken import to_its_end
from ..reasoning.knowledge import Knowledge
from ..reasoning.strategy import Models
from ..serving.metered import MeteredModel
from ..serving.metered_embeddings import MeteredEmbedding
from ..serving.metered_rewards import MeteredReward
from ..serving.model import LanguageModel
from ..serving.rewards import RewardModel, own_judge
from .calibrated import doubts
from .knowledge import described
from .nodes import answer_unverified, assemble, resume_costs
from .on_its_own import on_its_own
from .pacing import paced
from .state import Pipeline, State
from .verifying import Verifying

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.types import Durability

    from .graph import Graph


class Journey:
    """One run through the pipeline.

    Args:
        run: The run; the store has it already.
        models: Its language models by role.
        graph: Gives the pipeline; that of a replay keeps no checkpoints.
        reward: Its reward model, if it has one.
        knowledge: What it knows beside them.
        verifying: What verifies its answers.
    """

    def __init__(
        self,
        run: Run,
        models: Mapping[str, LanguageModel],
        graph: Callable[[], Graph],
        reward: RewardModel | None = None,
        knowledge: Knowledge | None = None,
        verifying: Verifying | None = None,
    ) -> None:
        self._verifying = verifying or Verifying()
        self._knowledge = knowledge or Knowledge()
        self._changed: tuple[str, ...] = ()
        self._run = run
        self._models = dict(models)
        self._reward = reward
        self._graph = graph
        self._thread: RunnableConfig = {"configurable": {"thread_id": run.id}}

    async def start(self) -> Answer:
        """From the beginning, also of a run that was stopped before it had a checkpoint."""
        identities: dict[str, Any] = {
            role: {"identity": m.identity, "capabilities": m.capabilities.model_dump(mode="json")}
            for role, m in self._used().items()
        }
        identities |= described(self._knowledge) | self._verifying.described()
        if self._run.recording:
            await self._run.store.set_identities(self._run.id, identities)
        return await self._travel(self._from_the_start, resumed=self._run.resumed)

    async def go_on(self, changed: Sequence[str] = ()) -> Answer:
        """From the last checkpoint; a run that was stopped before its first solution starts at the beginning.

        Args:
            changed: Brains that answer otherwise than when the run began.
        """
        self._changed = tuple(changed)
        with on_its_own():
            graph = await asyncio.to_thread(self._graph)
            reached = await graph.aget_state(self._thread)
        if not reached.values:
            return await self.start()
        resume_costs(self._run, cast(State, reached.values))
        return await self._travel(lambda pipeline: self._through_all(None, pipeline), resumed=True)

    async def _from_the_start(self, pipeline: Pipeline) -> Answer:
        """Through the graph; a run that verifies nothing needs none."""
        if self._run.config.verify:
            return await self._through_all({"question": self._run.question.model_dump(mode="json")}, pipeline)
        return await answer_unverified(pipeline)

    async def _through_all(self, state: State | None, pipeline: Pipeline) -> Answer:
        """Through the graph with a checkpoint after each stage; None goes on from the last."""
        graph = await asyncio.to_thread(self._graph)  # the first one imports LangGraph
        durability: Durability | None = None if graph.checkpointer is None else "async"
        reached = await graph.ainvoke(state, self._thread, context=pipeline, durability=durability)
        return Answer.model_validate(reached["answer"])

    async def _travel(self, through: Callable[[Pipeline], Awaitable[Answer]], *, resumed: bool) -> Answer:
        run, config = self._run, self._run.config
        run.emit(
            RunStarted(
                question=config.question,
                strategy=config.strategy,
                models=config.models,
                seed=config.seed,
                resumed=resumed,
            )
        )
        reward = None if self._reward is None else MeteredReward(self._reward, "reward", run)
        models = Models(
            {role: MeteredModel(m, role, run) for role, m in self._models.items()},
            reward,
            lambda role: MeteredReward(own_judge(self._models[role]), "reward", run),
            self._metered_knowledge(),
            entailment=self._verifying.for_strategy(run),
        )
        pipeline = Pipeline(run=run, models=models, parameters=config.parameters, verifying=self._verifying)
        try:
            if resumed:  # one that kills its process at once must be known to have begun (see `Run.begun_before`)
                await run.write_events()
            doubt = doubts(config, {role: model.identity for role, model in self._used().items()})
            if doubt:
                run.degrade(doubt)
            for name in self._changed:
                run.degrade(f"{name} has changed since the run began: what it was asked is asked anew")
            async with paced(run):
                with on_its_own():
                    answer = await through(pipeline)
        except asyncio.CancelledError:
            if run.handed_over:
                await run.write_events()
                await run.store.release_run(run.id)
            else:
                await to_its_end(self._end("interrupted", self._partial("cancelled")))
            raise
        except NotVerified as e:
            await to_its_end(self._end("finished", e.partial))
            raise
        except Exception as e:
            # whatever it is, the store must not say that the run still goes on
            code = e.code if isinstance(e, ReasonError) else "internal"
            message = e.message if isinstance(e, ReasonError) else f"{type(e).__name__}: {e}"
            run.emit(RunFailed(code=code, message=message))
            await to_its_end(self._end("failed", self._partial("error"), error={"code": code, "message": message}))
            raise
        await to_its_end(self._end("finished", answer))  # cancelled so late, the run has ended all the same
        return answer

    def _metered_knowledge(self) -> Knowledge:
        """What the run knows, its embedding model charged to the run."""
        known = self._knowledge
        if known.embedding is None:
            return known
        return replace(known, embedding=MeteredEmbedding(known.embedding, "embedding", self._run))

    def _used(self) -> dict[str, LanguageModel | RewardModel]:
        """All models by role, the reward model too."""
        used: dict[str, LanguageModel | RewardModel] = {**self._models}
        if self._reward is not None:
            used["reward"] = self._reward
        return used

    async def _end(self, status: RunStatus, answer: Answer, error: dict[str, Any] | None = None) -> None:
        run = self._run
        run.ledger.stop()
        if error is None:
            run.emit(RunFinished(answer=answer))
        if run.recording:
            await run.store.end_run(run.id, status, answer.model_dump(mode="json"), error, events=run.take_events())

    def _partial(self, stopped: Any) -> Answer:
        """The best answer so far; where there is none, what was being written when the run was stopped."""
        run = self._run
        best = run.best
        if best is None:
            begun = [c for c in run.unfinished if c.text]
            candidates = tuple(
                Candidate(text=c.text, tokens=c.usage.completion_tokens, finish_reason=c.finish_reason) for c in begun
            )
            best = Solution(chosen=0 if candidates else None, candidates=candidates)
        return assemble(run, best.model_copy(update={"stopped": stopped}), strategy=run.config.strategy)
