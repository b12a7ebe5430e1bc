"""A part of a run made by n loops, of which one is chosen.

    state ──┬─► trajectory 1: model ─► tools ─► model …  ──┐
            ├─► trajectory 2: model ─► tools ─► model …  ──┼─► choose ─► store ─► the chosen one's messages
            └─► trajectory 3: model ─► tools ─► model …  ──┘

It takes the place of the node `model`. A trajectory ends with an answer, or with a turn that calls for a change: such
calls are held, and the loop's own nodes approve and execute those of the chosen trajectory. Results of reads are
shared: an equal read is one call for all. The choice is stored before anything follows from it, and a resumed run and a
replay take it from there.

Source: Zhu et al., "Scaling Test-time Compute for LLM Agents" (2025), arXiv:2506.12928, sections 3.1 and 3.4, for
parallel sampling of agents and the choice among them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import JsonValue

from ...core.clock import monotonic
from ...core.concurrency import cancel_and_wait
from ...core.errors import BackendError, BudgetExceeded, ReasonError, StoreError, UserError
from ...core.events import CallFinished, Event, SolutionFinished, StrategyNote
from ...core.messages import Completion, Request, ToolCall
from ...core.run import Run
from ...core.store.records import NewCall, call_key
from ...core.types import Candidate, Question, Solution
from ...reasoning.answers.calls import normalized_calls
from ...reasoning.answers.equivalence import Equivalence
from ...reasoning.best_of_n import score_by_tests
from ...serving.metered.model import MeteredModel
from ...serving.model import Listener
from ..loop.executor import ToolExecutor
from ..loop.records import StoredToolCall
from ..loop.state import NODES, LoopContext, LoopState, StateUpdate, checkpointed, repetition
from ..loop.tool import ToolResult
from ..pipeline import metered_models
from .selection import Choice, check_rule, choose
from .trajectory import Trajectory

MAX_TRAJECTORIES: Final = 32
TEMPERATURE: Final = 0.7
"""Temperature of turns whose strategy is greedy by default, where the model takes one: greedy loops would be equal."""


def check_trajectories(number: int, select: str, question: Question, tools: Sequence[str]) -> None:
    """Refuse trajectories that a run cannot have, before it costs anything.

    Raises:
        UserError: There are too few or too many, the rule is unknown, there are no tools, or a client executes some.
    """
    if not 1 <= number <= MAX_TRAJECTORIES:
        raise UserError(f"trajectories must be 1 to {MAX_TRAJECTORIES}, got {number}", param="trajectories")
    check_rule(select)
    if number > 1 and question.needs_tools:
        raise UserError(
            "a client that executes its tools itself has one world, and so one trajectory",
            hint="name tools that the run executes (--tool), or leave out trajectories",
            param="trajectories",
        )
    if number > 1 and not tools:
        raise UserError(
            "several trajectories need tools, and none is named",
            hint="name some with --tool, or sample answers with --strategy self-consistency",
            param="trajectories",
        )


async def run_trajectories(state: LoopState, context: LoopContext) -> StateUpdate:
    """The messages and the solution of the chosen one of several loops that begin at a state.

    Raises:
        ReasonError: None got anywhere; the error is the first one's.
    """
    run, config = context.run, context.run.config
    assert context.executor is not None
    segment = call_key("trajectories", [context.history(state.messages), state.num_repairs], config.seed, 0)
    stored = (await run.find_calls([segment])).get(segment)
    if stored is not None:
        last = LoopState.model_validate(stored.response["state"])
        run.ledger.restore(last.usage or run.ledger.usage())
        run.ledger.exhausted = last.exhausted
        for what in last.degraded:
            run.degrade(what)
        _emit_choice(run, str(stored.response["reason"]))
    else:
        loops, choice = await _chosen(state, context, segment)
        last = state if choice.position is None else await loops[choice.position].concluded()
        if choice.question is not None:
            abstained = Solution(chosen=0, candidates=(choice.question,), stopped="abstained")
            last = state.after({"solution": abstained, "messages": (choice.question.message,)})
        number = "none" if choice.position is None else f"trajectory {choice.position + 1}"
        reason = f"{number} was chosen: {choice.reason}"
        last = last.after(checkpointed({}, run))
        response: dict[str, JsonValue] = {"reason": reason, "state": last.model_dump(mode="json")}
        await run.save_calls([NewCall(segment, "trajectories", "", {"trajectories": config.trajectories}, response)])
        _emit_choice(run, reason)
    solution = last.last_solution
    if solution.best is None or not solution.best.tool_calls:
        run.set_best(solution)
    run.emit(SolutionFinished(solution=solution))
    update = {name: getattr(last, name) for name in ("solution", "previous", "num_repairs")}
    return {**update, "messages": last.messages[len(state.messages) :]}


def _emit_choice(run: Run, reason: str) -> None:
    run.emit(StrategyNote(strategy=run.config.strategy, name="trajectories.chosen", data={"choice": reason}))


async def _chosen(state: LoopState, context: LoopContext, segment: str) -> tuple[list[_Loop], Choice]:
    """Run the loops to their ends, or until one wins a race; returns them with the choice."""
    run, shared = context.run, _Shared(segment)
    loops = [_Loop(i, state, context, shared) for i in range(run.config.trajectories)]
    tools = [tool.declaration.model_copy(update={"effect": tool.effect}) for tool in loops[0].executor.tools.values()]
    changes = any(tool.effect != "read" for tool in tools)
    rule = run.config.select or ("agreement" if changes else "race")
    tasks = [asyncio.create_task(loop.follow()) for loop in loops]

    def cancel() -> None:  # the answer is wanted now: of what there is
        for task in tasks:
            task.cancel()

    pending = set(tasks)
    try:
        with run.on_conclude(cancel):
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if not task.cancelled():
                        task.result()  # raises what is no end of a trajectory
                if rule == "race" and any(loop.trajectory().is_eligible for loop in loops):
                    break
    finally:
        if pending:
            await cancel_and_wait(*pending)
    trajectories = [loop.trajectory() for loop in loops]

    async def tests(some: Sequence[Trajectory]) -> list[float | None]:
        texts = [one.messages[-1].content if one.messages else "" for one in some]
        scores = await score_by_tests([Candidate(text=text) for text in texts], run.question, run)
        return [None if score is None else score.value for score in scores.scores]

    async with Equivalence.for_run(run) as equivalence:
        choice = await choose(
            rule,
            trajectories,
            tools=tools,
            question=run.question,
            equivalence=equivalence,
            judge=context.models.judge,
            tests=tests,
        )
    num_ended = sum(one.is_eligible for one in trajectories)
    num_stopped = sum(bool(loop.stopped) for loop in loops)
    if num_stopped:
        reasons = "; ".join(dict.fromkeys(loop.stopped for loop in loops if loop.stopped))
        run.degrade(f"{num_stopped} of {len(loops)} trajectories did not end by themselves: {reasons}")
    errors = [loop.error for loop in loops if loop.error is not None]
    if not num_ended and len(errors) == len(loops):
        raise errors[0]
    return loops, choice


@dataclass
class _Shared:
    """What the trajectories of one part of a run have in common: the results of their reads."""

    segment: str
    results: dict[str, ToolResult] = field(default_factory=dict)
    locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    counted: set[str] = field(default_factory=set)


class _Loop:
    """One of the loops.

    Attributes:
        error: What ended it, if that was an error.
        stopped: Why it did not end by itself; empty if it did, or was cancelled.
    """

    def __init__(self, index: int, state: LoopState, context: LoopContext, shared: _Shared) -> None:
        self.index, self._state, self._begin = index, state, state
        self._run = run = _TrajectoryRun(context.run, index)
        self.executor = _TrajectoryExecutor(run, context, shared)
        self._context = LoopContext(
            run, metered_models(run, context.resources, _SampledModel), context.resources, self.executor
        )
        self.error: ReasonError | None = None
        self.stopped = ""
        self._held: tuple[ToolCall, ...] = ()
        self._num_calls, self._seconds = 0, 0.0

    async def follow(self) -> None:
        """Make turns until it ends, proposes a change, or may not go on."""
        began = monotonic()
        try:
            while not (self._turn_ends() or self._limit()):
                with self._run.stage(f"trajectory {self.index + 1} · turn {self._state.num_turns + 1}"):
                    await self._node("model")
                    calls = self._state.messages[-1].tool_calls if self._state.messages else ()
                    self._held = self.executor.held(calls)
                    if calls and not self._held:
                        await self._node("tools")
                        self._num_calls += len(calls)
        except (BackendError, BudgetExceeded, StoreError) as e:
            if isinstance(e, StoreError) and self._run.recording:
                raise
            self.error, self.stopped = e, e.message
        finally:
            self._seconds = monotonic() - began

    async def concluded(self) -> LoopState:
        """Its last state; of one that may not go on, after its answer from what it has."""
        if not self._turn_ends():
            await self._node("model")
        return self._state

    def trajectory(self) -> Trajectory:
        """It, as the choice sees it."""
        state, solution = self._state, self._state.solution
        made = state.messages[len(self._begin.messages) :]
        best = None if solution is None or not made else solution.best
        has_ended = self._turn_ends() and best is not None and not best.tool_calls
        answer = best.answer if best is not None and has_ended else None
        return Trajectory(
            index=self.index,
            messages=made,
            ended=answer is not None and solution is not None and solution.stopped == "done",
            answer=answer,
            held=self._held,
            num_calls=self._num_calls,
            num_turns=sum(message.role == "assistant" for message in made),
            tokens=self._run.tokens,
            seconds=self._seconds,
        )

    def _turn_ends(self) -> bool:
        """Whether the last turn was an answer, or calls for a change."""
        return self._state is not self._begin and self._state.node == "model"

    def _limit(self) -> bool:
        """Whether no further turn may begin."""
        ledger = self._run.ledger
        if self._state.node == "tools" and repetition(self._state.messages) == "end":
            self.stopped = "it repeated itself"
        elif ledger.remaining("turns") < 1 or ledger.exhausted in ("turns", "tool_calls"):
            self.stopped = f"the limit of {ledger.exhausted or 'turns'} is reached"
        elif ledger.is_closed:
            self.stopped = "the answer was wanted at once"
        return bool(self.stopped)

    async def _node(self, name: Literal["model", "tools"]) -> None:
        update = await NODES[name](self._state, self._context)
        self._state = self._state.after({**update, "node": name})


class _TrajectoryRun(Run):
    """The run as one of its trajectories sees it, with a seed, a best answer and a place in the trace of its own."""

    def __init__(self, run: Run, index: int) -> None:
        vars(self).update(vars(run))
        vars(self).pop("rng", None)
        self._outer = run
        update = {"seed": run.derive_seed("trajectory", index), "trajectories": 1, "verify": ()}
        self.config = run.config.model_copy(update=update)
        self._best = lambda: None
        self.partial_completions = []
        self.stream_text = False  # texts of several at once
        self.tokens = 0

    def emit(self, event: Event, parent: int | None = None) -> int:
        self.tokens += event.tokens if isinstance(event, CallFinished) else 0
        return self._outer.emit(event, self._parent if parent is None else parent)

    def require_open(self) -> None:
        self._outer.require_open()

    def conclude(self) -> None:
        self._outer.conclude()


class _SampledModel(MeteredModel):
    """A model whose turns are sampled."""

    async def generate(
        self, requests: Sequence[Request], listener: Listener | None = None, *, enough: asyncio.Event | None = None
    ) -> list[list[Completion]]:
        return await super().generate([_sampled(request) for request in requests], listener, enough=enough)


def _sampled(request: Request) -> Request:
    if not request.prompt.tools or request.sampling.default_temperature != 0:
        return request
    sampling = request.sampling.model_copy(update={"default_temperature": TEMPERATURE})
    return request.model_copy(update={"sampling": sampling})


class _TrajectoryExecutor(ToolExecutor):
    """Executes the reads of one trajectory, each equal one once for all."""

    def __init__(self, run: Run, context: LoopContext, shared: _Shared) -> None:
        assert context.executor is not None
        super().__init__(run, context.executor.tools, approve=run.config.approve or "never")
        self._shared = shared

    def held(self, calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
        """Those of a turn's calls that change something, or that a person has to approve."""
        return tuple(
            call
            for call in calls
            if (tool := self.tools.get(call.name)) is not None
            and (tool.effect != "read" or tool.asks or self._approve == "all")
            and not tool.fault(call.arguments)
        )

    def _planned(self, turn: int, position: int, intent: str, call: ToolCall) -> StoredToolCall:
        tool = self.tools.get(call.name)
        form = intent if tool is None else normalized_calls([call], [tool.declaration])
        shared = hashlib.sha256(f"{self._shared.segment}:{form}".encode()).hexdigest()[:32]
        return super()._planned(turn, position, shared, call)

    def _count(self, row: StoredToolCall) -> bool:
        if row.id in self._shared.counted:
            return True
        if is_allowed := super()._count(row):
            self._shared.counted.add(row.id)
        return is_allowed

    async def _result(self, row: StoredToolCall) -> ToolResult:
        results = self._shared.results
        async with self._shared.locks[row.id]:
            if row.id in results:
                row = row.model_copy(update={"status": "done", "attempts": 1, "result": results[row.id]})
            results[row.id] = await super()._result(row)
        return results[row.id]
