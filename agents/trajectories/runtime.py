"""A part of a run made by n loops, of which one is chosen.

    state ──┬─► trajectory 1: model ─► tools ─► model …  ──┐
            ├─► trajectory 2: model ─► tools ─► model …  ──┼─► choose ─► store ─► the chosen one's messages
            └─► trajectory 3: model ─► tools ─► model …  ──┘

It takes the place of the node `model`. A trajectory ends with an answer, or with a turn that calls for a change: such
calls are held, and the loop's own nodes approve and execute those of the chosen trajectory. Results of reads are
shared: an equal read is one call for all. Tools of a world that forks act on a fork for each trajectory, where changes
need no approval; the chosen one's are approved together, as one call of `apply_changes`. The choice is stored before
anything follows from it, and a resumed run and a replay take it from there.

Source: Zhu et al., "Scaling Test-time Compute for LLM Agents" (2025), arXiv:2506.12928, sections 3.1 and 3.4, for
parallel sampling of agents and the choice among them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final, Literal

from pydantic import JsonValue

from ...core.clock import monotonic
from ...core.concurrency import cancel_and_wait
from ...core.errors import BackendError, BudgetExceeded, ReasonError, StoreError, UserError
from ...core.events import (
    CallFinished,
    Event,
    SolutionFinished,
    StageFinished,
    StageStarted,
    StrategyNote,
    ToolFinished,
    ToolStarted,
)
from ...core.messages import Chunk, Completion, Effect, Frozen, Message, Prompt, Request, SamplingParams, Tool, ToolCall
from ...core.run import Run
from ...core.store.records import NewCall, call_key
from ...core.types import Candidate, Question, Solution
from ...reasoning.answers.calls import normalized_calls
from ...reasoning.answers.equivalence import Equivalence
from ...reasoning.best_of_n import score_by_tests
from ...reasoning.strategy import RESOURCES
from ...serving.metered.model import MeteredModel
from ...serving.model import Listener
from ..loop.executor import ToolExecutor, Waiting
from ..loop.records import ENDED, StoredToolCall
from ..loop.state import NODES, LoopContext, LoopState, StateUpdate, checkpointed, repetition
from ..loop.tool import ExecutableTool, ToolCallContext, ToolResult, World
from ..pipeline import metered_models
from .selection import Choice, check_rule, choose
from .trajectory import Trajectory

MAX_TRAJECTORIES: Final = 32
APPLY: Final = "apply_changes"
"""The call that applies the changes of the chosen trajectory's fork."""
APPLY_S: Final = 600.0
FORK_DIGITS: Final = 12
"""Last digits of the IDs of all calls in a fork, which are the fork's own."""
TEMPERATURE: Final = 0.7
"""Temperature of turns whose strategy is greedy by default, where the model takes one: greedy loops would be equal."""


def check_trajectories(number: int, select: str, question: Question, tools: Sequence[str]) -> None:
    """Refuse trajectories that a run cannot have, before it costs anything.

    Raises:
        UserError: There are too few or too many, the rule is unknown or has nothing to choose from, there are no tools,
            or a client executes some.
    """
    if not 1 <= number <= MAX_TRAJECTORIES:
        raise UserError(f"trajectories must be 1 to {MAX_TRAJECTORIES}, got {number}", param="trajectories")
    check_rule(select)
    if number == 1 and select:
        raise UserError(
            f"the rule {select!r} chooses one of several trajectories, and there is one",
            hint="give their number too: --trajectories 3",
            param="select",
        )
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


class StoredChoice(Frozen):
    """The choice of one part of a run.

    Attributes:
        reason: Which trajectory was chosen, and why.
        state: The state after its last turn.
        fork: Name of the chosen one's forks of the tools' worlds.
        forks: Names of all forks.
        changes: What the chosen one has changed in its fork.
        details: The changes as a person who approves them sees them.
    """

    reason: str
    state: LoopState
    fork: str = ""
    forks: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    details: str = ""


async def run_trajectories(state: LoopState, context: LoopContext) -> StateUpdate:
    """The messages and the solution of the chosen one of several loops that begin at a state.

    Raises:
        ReasonError: None got anywhere; the error is the first one's.
        Waiting: The changes in the chosen one's fork need an approval.
    """
    run, config = context.run, context.run.config
    segment = call_key("trajectories", [context.history(state.messages), state.num_repairs], config.seed, 0)
    stored = (await run.find_calls([segment])).get(segment)
    if stored is None:
        choice = await _make_choice(state, context, segment)
        response: dict[str, JsonValue] = choice.model_dump(mode="json")
        await run.save_calls([NewCall(segment, "trajectories", "", {"trajectories": config.trajectories}, response)])
    else:
        choice = StoredChoice.model_validate(stored.response)
        run.ledger.restore(choice.state.usage or run.ledger.usage())
        run.ledger.exhausted = choice.state.exhausted
        for what in choice.state.degraded:
            run.degrade(what)
    run.emit(StrategyNote(strategy=config.strategy, name="trajectories.chosen", data={"choice": choice.reason}))
    last = choice.state
    if choice.changes and (reason := await _apply(context, choice, segment)):
        text = f"The changes of the chosen attempt were not applied. {reason}"
        refused = Solution(chosen=0, candidates=(Candidate(text=text, answer=text),), stopped="abstained")
        last = last.after({"solution": refused, "messages": (Message(role="assistant", content=text),)})
    if run.recording:
        assert context.executor is not None
        for name in choice.forks:
            await _close(await _forked(context.executor.tools, name))
    solution = last.last_solution
    if solution.best is None or not solution.best.tool_calls:
        run.set_best(solution)
    run.emit(SolutionFinished(solution=solution))
    update = {name: getattr(last, name) for name in ("solution", "previous", "num_repairs", "not_chosen")}
    return {**update, "messages": last.messages[len(state.messages) :]}


async def _make_choice(state: LoopState, context: LoopContext, segment: str) -> StoredChoice:
    shared = _Shared(segment)
    loops = [_Loop(i, state, context, shared) for i in range(context.run.config.trajectories)]
    try:
        for loop in loops:
            await loop.executor.fork()
        choice = await _chosen(loops, context)
        chosen = None if choice.position is None else loops[choice.position]
        last = state if chosen is None else await chosen.concluded()
        worlds = [] if chosen is None else _worlds(chosen.executor.tools)
        changes = [line for world in worlds for line in await world.changes()]
        details = [text for world in worlds if (text := await world.details())]
    except ReasonError:
        for loop in loops:
            await _close(loop.executor.tools)
        raise
    if choice.question is not None:
        abstained = Solution(chosen=0, candidates=(choice.question,), stopped="abstained")
        last = state.after({"solution": abstained, "messages": (choice.question.message,)})
    own: set[str] = set() if chosen is None else chosen.executor.made
    others = {call for loop in loops for call in loop.executor.made} - own
    last = last.after({"not_chosen": (*state.not_chosen, *sorted(others))})
    number = "none" if chosen is None else f"trajectory {chosen.index + 1}"
    return StoredChoice(
        reason=f"{number} was chosen: {choice.reason}",
        state=last.after(checkpointed({}, context.run)),
        fork="" if chosen is None else chosen.executor.fork_name,
        forks=tuple(loop.executor.fork_name for loop in loops if loop.executor.fork_name),
        changes=tuple(changes),
        details="\n".join(details),
    )


async def _forked(tools: Mapping[str, ExecutableTool], name: str) -> dict[str, ExecutableTool]:
    """The tools, where those of a world are those of its fork."""
    forks = {world: await world.fork(name) for world in _worlds(tools)}

    def forked(key: str, tool: ExecutableTool) -> ExecutableTool:
        if tool.world is None:
            return tool
        fork = forks[tool.world]
        effect: Effect = "read" if tool.effect == "read" else "idempotent"  # whoever repeats it does so in a new fork
        return replace(tool, call=fork.tools[key].call, effect=effect, status=None, world=fork)

    return {key: forked(key, tool) for key, tool in tools.items()}


def _worlds(tools: Mapping[str, ExecutableTool]) -> list[World]:
    return list(dict.fromkeys(tool.world for tool in tools.values() if tool.world is not None))


async def _close(tools: Mapping[str, ExecutableTool]) -> None:
    for world in _worlds(tools):
        await world.close()


async def _apply(context: LoopContext, choice: StoredChoice, segment: str) -> str:
    """Apply the changes of the chosen trajectory, once they are approved; the reason if they are not.

    Raises:
        Waiting: They need an approval.
    """
    run, outer = context.run, context.executor
    assert outer is not None

    async def apply(arguments: Mapping[str, JsonValue], context: ToolCallContext) -> str:
        worlds = _worlds(await _forked(outer.tools, choice.fork))
        if any(world.is_new for world in worlds):
            raise UserError(
                "they are gone: the copy in which they were made was removed", hint="ask the question again"
            )
        decision = (await applier.load())[context.intent].decision
        is_seen = (
            decision is not None and decision.kind in ("approve", "edit") and decision.by not in ("check", "assume")
        )
        for world in worlds:
            await world.commit(outward_links=is_seen)
        return "applied"

    declaration = Tool(name=APPLY, description="Apply the changes of the chosen attempt.", parameters={})
    tool = ExecutableTool(declaration=declaration, call=apply, effect="idempotent", seconds=APPLY_S)
    arguments = json.dumps({"changes": choice.changes}, ensure_ascii=False)
    call = ToolCall(name=APPLY, arguments=arguments, id=segment[:16])
    applier, turn = _Applier(run, {APPLY: tool}, outer, choice.details), choice.state.num_turns
    if run.config.check_writes is not None:
        messages = (*choice.state.messages, Message(role="assistant", content="", tool_calls=(call,)))
        await RESOURCES.load("write_check")(replace(context, executor=applier), turn, segment, messages)
    (message,) = await applier.execute(turn, segment, [call])
    return message.content if message.content.startswith("Error") else ""


class _Applier(ToolExecutor):
    """Executes `apply_changes`, which no limit stops: what it applies is paid for."""

    def __init__(self, run: Run, tools: Mapping[str, ExecutableTool], outer: ToolExecutor, details: str) -> None:
        super().__init__(run, tools, approve=run.config.approve or "never", approver=outer.approver)
        self._details = details

    def _approval(self, turn: int, call: ToolCall, tool: ExecutableTool) -> str | None:
        return None if super()._approval(turn, call, tool) is None else self._details

    def _count(self, row: StoredToolCall) -> bool:
        return True

    def _run_end(self) -> str:
        return ""


async def _chosen(loops: Sequence[_Loop], context: LoopContext) -> Choice:
    """Run the loops to their ends, or until one wins a race, and choose one."""
    run, all_tools = context.run, list(loops[0].executor.tools.values())
    tools = [tool.declaration.model_copy(update={"effect": tool.effect}) for tool in all_tools]
    changing = [tool for tool in all_tools if tool.effect != "read"]
    has_held = any(tool.world is None for tool in changing)
    rule = run.config.select or ("agreement" if has_held else "ended-fewest-calls" if changing else "race")
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
    return choice


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
        began, run = monotonic(), self._run
        asked = Request(prompt=Prompt.user(run.question.text), sampling=SamplingParams(seed=run.outer_seed))
        try:
            with self._context.models.main.held([asked]):  # no recorded run advances while this one executes its calls
                await self._follow()
        finally:
            self._seconds = monotonic() - began

    async def _follow(self) -> None:
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
        except Waiting:
            self.stopped = "a call in its fork was interrupted"

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
            writes=tuple(self.executor.writes),
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


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class _TrajectoryRun(Run):
    """The run as one of its trajectories sees it: its choices, best answer and place in the trace are its own."""

    def __init__(self, run: Run, index: int) -> None:
        vars(self).update(vars(run))
        vars(self).pop("rng", None)
        self._outer, self.index, self.outer_seed = run, index, run.seed
        update = {"seed": run.derive_seed("trajectory", index), "trajectories": 1, "verify": (), "check_writes": None}
        self.config = run.config.model_copy(update=update)
        self._best = lambda: None
        self.partial_completions = []
        self.stream_text = False  # texts of several at once
        self.tokens = 0

    def emit(self, event: Event, parent: int | None = None) -> int:
        self.tokens += event.tokens if isinstance(event, CallFinished) else 0
        if isinstance(event, ToolStarted | ToolFinished | StageStarted | StageFinished):
            event = event.model_copy(update={"trajectory": self.index + 1})
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
        """Sample at indices that no other trajectory has, under the run's seed (see `LanguageModel.generate`)."""

        def heard(chunk: Chunk) -> bool | None:
            assert listener is not None
            completion = None if chunk.completion is None else _outward(chunk.completion)
            update = {"sample_index": chunk.sample_index // MAX_TRAJECTORIES, "completion": completion}
            return listener(chunk.model_copy(update=update))

        own = [_inward(request, self._run) for request in requests]
        samples = await super().generate(own, None if listener is None else heard, enough=enough)
        return [[_outward(sample) for sample in some] for some in samples]


def _inward(request: Request, run: Run) -> Request:
    """A trajectory's request with indices of its own; sampled where the strategy is greedy by default."""
    assert isinstance(run, _TrajectoryRun)
    sampling = request.sampling
    if sampling.seed is None:
        sampling = sampling.model_copy(update={"seed": run.outer_seed})
    if request.prompt.tools and sampling.default_temperature == 0:
        sampling = sampling.model_copy(update={"default_temperature": TEMPERATURE})
    indices = tuple(MAX_TRAJECTORIES * index + run.index for index in request.indices)
    return request.model_copy(update={"sampling": sampling, "sample_indices": indices})


def _outward(sample: Completion) -> Completion:
    return sample.model_copy(update={"sample_index": sample.sample_index // MAX_TRAJECTORIES})


class _TrajectoryExecutor(ToolExecutor):
    """Executes the calls of one trajectory: its reads each once for all, its changes in forks.

    Attributes:
        made: IDs of its calls.
        writes: Changes that were made in forks.
        fork_name: Name of its forks; empty if no tool has a world.
    """

    def __init__(self, run: _TrajectoryRun, context: LoopContext, shared: _Shared) -> None:
        assert context.executor is not None
        super().__init__(run, context.executor.tools, approve=run.config.approve or "never")
        self._origins, self._shared, self._index = context.executor.tools, shared, run.index
        self.made: set[str] = set()
        self.writes: list[ToolCall] = []
        self.fork_name = ""

    async def fork(self) -> None:
        """Let the tools of worlds act on forks: those of a killed process, unless they or a call in them were lost."""
        if not _worlds(self._origins):
            return
        rows = await self.load()
        for generation in count():
            self.fork_name = f"{self._run.id}-{self._shared.segment[:16]}-{self._index}-{generation}"
            self.tools = await _forked(self._origins, self.fork_name)
            own = [row for row in rows.values() if row.id.endswith(_digest(self.fork_name)[:FORK_DIGITS])]
            is_new = any(world.is_new for world in _worlds(self.tools))
            if not own or (not is_new and all(row.status in ENDED for row in own)):
                return
            await _close(self.tools)

    def held(self, calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
        """Those of a turn's calls that change something, or that a person has to approve."""
        return tuple(
            call
            for call in calls
            if (tool := self.tools.get(call.name)) is not None
            and tool.world is None
            and (tool.effect != "read" or tool.asks or self._approve == "all")
            and not tool.fault(call.arguments)
        )

    def _planned(self, turn: int, position: int, intent: str, call: ToolCall) -> StoredToolCall:
        tool = self.tools.get(call.name)
        if tool is not None and tool.world is not None:  # nothing else has made it in this fork
            own = _digest(f"{self.fork_name}:{intent}")[:-FORK_DIGITS] + _digest(self.fork_name)[:FORK_DIGITS]
        else:
            form = intent if tool is None else normalized_calls([call], [tool.declaration])
            own = _digest(f"{self._shared.segment}:{form}")
        self.made.add(own)
        return super()._planned(turn, position, own, call)

    def _approval(self, turn: int, call: ToolCall, tool: ExecutableTool) -> str | None:
        return super()._approval(turn, call, tool) if tool.world is None or tool.asks else None

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
            results[row.id] = result = await super()._result(row)
        if (tool := self.tools.get(row.tool)) and tool.world and tool.effect != "read" and not result.is_error:
            self.writes.append(ToolCall(name=row.tool, arguments=row.used_arguments))
        return result
