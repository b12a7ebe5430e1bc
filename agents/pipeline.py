"""One run, from its start or its last checkpoint to its end, however it ends.

A run without verifiers and tools is one turn of a strategy. Any other goes through the LangGraph graph of the loop,
which has a checkpoint after each node.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Any, Literal

from ..core.concurrency import shielded
from ..core.errors import CapabilityMissing, NotVerified, ReasonError
from ..core.events import RunFailed, RunFinished, RunStarted, RunWaiting
from ..core.messages import Message
from ..core.run import Run
from ..core.store.records import JsonText, RunStatus
from ..core.store.sql import to_json
from ..core.types import Answer, AnswerCandidate, Candidate, PendingToolCall, Solution, Stopped, Verification
from ..core.verdicts import failure_text
from ..reasoning.conclude import no_answer_reason
from ..reasoning.strategy import Models, require_features
from ..serving.metered.model import MeteredModel
from ..serving.metered.scorers import MeteredEmbedding, MeteredReward
from ..serving.model import LanguageModel, MeasuresAgain
from ..serving.rewards.judge import own_judge
from ..serving.rewards.model import RewardModel
from .loop.executor import Approver, ToolExecutor, Waiting
from .loop.records import LoopStateStore
from .loop.state import END, LoopContext, LoopState, checkpointed, next_node, run_loop
from .planner import calibration_difference, inapplicable_map
from .resources import RecordedTool, RunResources


def finish(run: Run, state: LoopState) -> Answer:
    """Assemble the complete answer; raises `NotVerified` if it must be supported and is not."""
    solution, verification = state.last_solution, state.verification
    if solution.best is None or solution.best.answer is None:
        run.degrade(no_answer_reason(solution))
    answer = assemble(run, solution, verification, messages=state.messages)
    if run.config.require_verified and (verification is None or verification.verdict != "supported"):
        raise NotVerified(failure_text(verification), partial=answer)
    return answer


def assemble(
    run: Run,
    solution: Solution,
    verification: Verification | None = None,
    *,
    messages: tuple[Message, ...] = (),
    pending: tuple[PendingToolCall, ...] = (),
) -> Answer:
    """The answer as the user gets it, complete or partial; a calibration map that does not apply to it is reported."""
    best = solution.best
    confidence = solution.confidence
    calibration = run.config.calibration
    if calibration is not None and (reason := inapplicable_map(calibration, verification)):
        calibration = None
        if confidence is not None:
            run.degrade(reason)
    is_concluded = run.ledger.is_closed and solution.stopped in ("done", "budget")
    stopped: Stopped = "user" if is_concluded else solution.stopped
    return Answer(
        answer=None if best is None else best.answer,
        text="" if best is None else best.text,
        strategy=run.config.strategy,
        model=run.config.models.get("main", ""),
        confidence=confidence,
        stopped=stopped,
        candidates=tuple(
            # the parts of a candidate are valid
            AnswerCandidate.model_construct(**{name: getattr(c, name) for name in AnswerCandidate.model_fields})
            for c in solution.candidates
        ),
        verification=verification,
        usage=run.ledger.usage(),
        run_id=run.id,
        seed=run.seed,
        degraded=tuple(run.degraded),
        calibrated_confidence=None if calibration is None or confidence is None else calibration.apply(confidence),
        calibration="" if calibration is None else str(calibration),
        citations=() if best is None else best.citations,
        selected_strategy=str(solution.notes.get("selected_strategy", "")),
        option=None if best is None else run.question.option(best.answer),
        stopped_by=run.ledger.exhausted if stopped == "budget" else None,
        thought="" if best is None else best.thought,
        based_on=str(solution.notes.get("based_on", "the strategy's finished answer")) if stopped == "user" else "",
        tool_calls=() if best is None else best.tool_calls,
        thought_blocks=() if best is None else best.thought_blocks,
        messages=messages,
        pending=pending,
    )


class StepEnded(Exception):
    """The node of a step has ended, and the run has not."""


class PipelineRun:
    """One run, from its start or its last checkpoint to its end, however it ends.

    Args:
        approver: Asks for decisions about tool calls; None leaves the run waiting for them.
        assume: Outcome to assume for interrupted calls that change something.
        step: The state from which only the next node is run; None runs to the end.

    Attributes:
        state: The state after the last node.
    """

    def __init__(
        self,
        run: Run,
        resources: RunResources,
        *,
        approver: Approver | None = None,
        assume: Literal["done", "failed"] | None = None,
        step: LoopState | None = None,
    ) -> None:
        self._run, self._resources = run, resources
        self._states = LoopStateStore(run.store, run.writer)
        self._is_step, self.state = step is not None, step or LoopState()
        self._changed_sources: tuple[str, ...] = ()
        executor = None
        if run.config.tools or run.config.client_loop:
            approve = run.config.approve or "never"
            executor = ToolExecutor(run, resources.tools, approve=approve, approver=approver, assume=assume)
        self._context = LoopContext(run, metered_models(run, resources), resources, executor)

    async def start(self) -> Answer:
        """Run from the beginning, also a run that was stopped before it had a checkpoint.

        A run without verifiers and tools has none: all that costs anything is in its turn, whose calls are in the run
        store one by one.
        """
        if self._is_step:
            self._restore(self.state)
        is_new = not (self._is_step and self._run.resumed)
        return await self._execute(self.state, resumed=self._run.resumed, is_new=is_new)

    async def resume(self, waited: Answer | None = None) -> Answer:
        """Continue from the last checkpoint; a run stopped before its first solution starts at the beginning.

        Args:
            waited: Its answer when it last waited, which is the checkpoint of a run whose client executes its tools.
        """
        self._changed_sources = self._resources.knowledge.changed
        if self._is_step:
            return await self.start()
        if not self._has_checkpoints:
            if waited is None:
                return await self.start()
            turn = Candidate(text=waited.text, tool_calls=waited.tool_calls, thought=waited.thought)
            turn = turn.model_copy(update={"thought_blocks": waited.thought_blocks})
            last = LoopState(
                node="model",
                messages=waited.messages,
                solution=Solution(chosen=0, candidates=(turn,), confidence=waited.confidence),
                usage=waited.usage,
                degraded=waited.degraded,
            )
            self._restore(last)
            return await self._execute(last, resumed=True)
        stored = await self._states.last(self._run.id)
        if stored is None:
            return await self.start()
        state = LoopState.model_validate(json.loads(stored))
        self._restore(state)
        return await self._execute(state, resumed=True)

    async def _measure_again(self) -> None:
        """Have servers measured again, if they are remembered to lack what the run needs."""
        resources, question = self._resources, self._run.question
        declared = (tool.declaration for tool in resources.tools.values())
        question = question.model_copy(update={"tools": (*question.tools, *declared)})
        strategy = resources.strategy
        if strategy is None:
            return
        try:
            require_features(strategy, self._context.models, question)
        except CapabilityMissing:
            models = [model for model in resources.models.values() if isinstance(model, MeasuresAgain)]
            for model in models:
                await model.measure_again()
            self._context.models = metered_models(self._run, resources)
            try:
                require_features(strategy, self._context.models, question)
            except CapabilityMissing as e:
                if all(model.name != e.model for model in models):
                    raise
                hint = f"{e.hint}; this was measured, and `reason models probe {e.model} --fresh` measures it again"
                raise CapabilityMissing(e.feature, e.model, hint=hint) from None

    async def _identify(self) -> None:
        """Record what the run works with."""
        resources = self._resources
        models = described_models(resources.by_role())
        others = dict(resources.knowledge.descriptions)
        if resources.verifying is not None:
            others |= resources.verifying.identities()
        if resources.tools:
            others["tools"] = [RecordedTool.of(tool).model_dump(mode="json") for tool in resources.tools.values()]
        identities = {**json.loads(models), **others} if others else models
        writer = self._run.writer
        writer.identify(identities)
        if writer.is_created:  # others may follow it
            await writer.flush()

    @property
    def _has_checkpoints(self) -> bool:
        return bool(self._run.config.verify or self._run.config.tools)

    def _restore(self, state: LoopState) -> None:
        """Take over what an interrupted run had spent and degraded up to its last checkpoint."""
        run = self._run
        self._context.state = state
        if state.usage is not None:
            run.ledger.restore(state.usage, is_replayed=not self._is_step)
            run.ledger.exhausted = state.exhausted
        run.degraded = list(state.degraded)
        if state.solution is not None and not (state.messages and state.node != "verify"):
            run.set_best(state.solution)

    async def _loop(self, state: LoopState) -> Answer:
        """Run the loop from this state."""
        run = self._run
        is_saved = self._has_checkpoints and run.recording and not self._is_step
        checkpoint = self._save_state if is_saved else None
        last = await run_loop(state, self._context, is_step=self._is_step, checkpoint=checkpoint)
        self.state = last.after(checkpointed({}, run))
        if next_node(last, run) != END:
            raise StepEnded
        return finish(run, last)

    async def _save_state(self, state: LoopState) -> None:
        await self._states.save(self._run.id, str(to_json(state)))

    async def _execute(self, state: LoopState, *, resumed: bool, is_new: bool = False) -> Answer:
        run, config = self._run, self._run.config
        if not (self._is_step and self.state.node):
            run.emit(
                RunStarted(
                    question=run.question,
                    strategy=config.strategy,
                    models=config.models,
                    seed=config.seed,
                    resumed=resumed,
                    effort=config.effort,
                    thinking_tokens=config.thinking_tokens,
                    may_be_repaired=config.may_be_repaired,
                    trajectories=config.trajectories,
                )
            )
        try:
            if is_new:  # what fails here has failed the run
                await self._measure_again()
                await self._identify()
            if resumed:  # who follows it from another process sees at once that it goes on
                await run.writer.flush()
            difference = calibration_difference(
                config, {role: model.identity for role, model in self._resources.by_role().items()}
            )
            if difference:
                run.degrade(difference)
            for name in self._changed_sources:
                run.degrade(f"{name} has changed since the run began: its queries are sent again")
            for note in self._resources.tool_notes:
                run.degrade(note)
            async with run.writer.saving():
                answer = await self._loop(state)
        except asyncio.CancelledError:
            if run.requeue:
                await run.writer.flush()
                await run.store.release_run(run.id)
            else:
                await shielded(self._end("interrupted", self._partial("cancelled")))
            raise
        except StepEnded:
            await shielded(self._release())
            raise
        except Waiting as e:
            answer = self._partial("waiting", e.pending)
            run.emit(RunWaiting(pending=answer.pending))
            await shielded(self._end("waiting", answer))
            return answer
        except NotVerified as e:
            await shielded(self._end("finished", e.partial))
            raise
        except Exception as e:
            # whatever it is, the store must not keep the run as running
            code = e.code if isinstance(e, ReasonError) else "internal"
            message = e.message if isinstance(e, ReasonError) else f"{type(e).__name__}: {e}"
            run.emit(RunFailed(code=code, message=message))
            await shielded(self._end("failed", self._partial("error"), error={"code": code, "message": message}))
            raise
        await shielded(self._end("finished", answer))  # cancelled so late, the run has ended all the same
        return answer

    async def _release(self) -> None:
        """Leave the run to its next step."""
        if self._run.recording:
            await self._run.writer.flush()
            await self._run.store.release_run(self._run.id, "interrupted")

    def _end(self, status: RunStatus, answer: Answer, error: dict[str, Any] | None = None) -> Awaitable[None]:
        run = self._run
        run.ledger.stop()
        if error is None:
            run.emit(RunFinished(answer=answer))
        return run.writer.end(status, answer, error)

    def _partial(self, stopped: Stopped, pending: tuple[PendingToolCall, ...] = ()) -> Answer:
        """The best answer so far; without one, what was being generated when the run was stopped."""
        run, state = self._run, self._context.state
        best = run.best
        if any(call.question == "result" for call in pending):  # the client gets the turn
            best = state.last_solution
        if best is None:
            candidates = tuple(
                Candidate(
                    text=c.text,
                    tokens=c.usage.completion_tokens,
                    thought="" if c.thought is None else c.thought.text.strip(),
                    thinking_tokens=c.usage.thinking_tokens,
                    finish_reason=c.finish_reason,
                )
                for _, c in run.partial_completions
                if c.text
            )
            best = Solution(chosen=0 if candidates else None, candidates=candidates)
        solution = best.model_copy(update={"stopped": stopped})
        return assemble(run, solution, messages=state.messages, pending=pending)


def metered_models(run: Run, resources: RunResources, kind: type[MeteredModel] = MeteredModel) -> Models:
    """A run's models, charged to it."""
    knowledge, verifying = resources.knowledge, resources.verifying
    if knowledge.embedding is not None:
        knowledge = replace(knowledge, embedding=MeteredEmbedding(knowledge.embedding, "embedding", run))
    return Models(
        {role: kind(model, role, run) for role, model in resources.models.items()},
        None if resources.reward is None else MeteredReward(resources.reward, "reward", run),
        lambda role: MeteredReward(own_judge(resources.models[role]), "reward", run),
        knowledge,
        entailment=None if verifying is None else verifying.for_strategy(run),
    )


MAX_DESCRIBED = 64
_described: dict[tuple[tuple[str, str, int], ...], tuple[JsonText, list[object]]] = {}


def described_models(models: Mapping[str, LanguageModel | RewardModel]) -> JsonText:
    """Identity and capabilities of each model by role, as JSON; made once for the same models."""
    capabilities = {role: model.capabilities for role, model in models.items()}
    # by identity: an object in the cache keeps its id
    key = tuple((role, model.identity, id(capabilities[role])) for role, model in models.items())
    known = _described.get(key)
    if known is None:
        described = {
            role: {"identity": model.identity, "capabilities": capabilities[role].model_dump(mode="json")}
            for role, model in models.items()
        }
        if len(_described) >= MAX_DESCRIBED:
            _described.clear()
        known = _described[key] = JsonText(json.dumps(described)), list(capabilities.values())
    return known[0]
