"""The loop of a run: its state, its nodes, and what follows each of them.

    model ──► approve ──► tools ──► model …            while the model calls tools
      ├────► verify ──► model (repair) ──► verify …    with verifiers
      └────► end

A driver calls `run_node` with the name that `next_node` gives, until the end: `run_loop`, with the state in the run
store after each node, or a LangGraph graph (`Reasoner.graph`). A search never runs as steps of the loop: a strategy is
one node, and its durability is the run store's, call by call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, Final, Literal, Self, cast

from ...core.budget import LimitKind
from ...core.clock import monotonic
from ...core.errors import BackendError, BudgetExceeded, StoreError
from ...core.events import SolutionFinished, StageFinished, StageStarted, VerificationFinished
from ...core.messages import TOOL_CHOICE_NONE, Frozen, Message, ToolCall, canonical_calls
from ...core.run import Run
from ...core.types import Candidate, Question, RunUsage, Solution, Verification
from ...reasoning.answers.calls import normalized_calls
from ...reasoning.conclude import conclude_run, report_cut_candidates
from ...reasoning.json_answers import max_json_tokens, with_json_answer
from ...reasoning.strategy import RESOURCES, Models, require_features
from ...reasoning.thinking import fit_to_thinking
from ...verify.verifier import Verifier, VerifierContext
from ..planner import given_text
from ..repairs import VerifiedAttempt, better_attempt, combined, findings_text, has_findings, with_findings
from ..resources import RunResources
from .executor import REPEATED, ToolExecutor, client_uses
from .records import REJECTED, question_history
from .tool import READ_RESULT

END: Final = "__end__"
"""What `next_node` gives at the end; LangGraph's name of it."""
NodeName = Literal["model", "approve", "tools", "verify"]
MAX_EQUAL_TURNS: Final = 3
"""Turns running with the same calls and results after which the model is told; one more ends the run."""
MAX_TURNS_WITHOUT_NEWS: Final = 8
"""Turns running without a new call or result after which the run ends."""
MAX_REJECTIONS: Final = 3
"""Rejections of an equal call after which the run ends."""
_REPEATED = f"{REPEATED} {MAX_EQUAL_TURNS} times in a row. Do something else, or give your answer from what you know."


class LoopState(Frozen):
    """What the loop carries from node to node. Its JSON is checkpointed; run and models are not part of it.

    Attributes:
        node: The node that ended last; empty at the beginning.
        messages: Of a run with tools, all messages after the question: model turns, results, findings of verifiers.
        num_repairs: How often the answer went back to the strategy.
        previous: The best attempt before, while another one is made.
        usage: Cost of the run up to this node; only in checkpoints.
        degraded: `Run.degraded` up to this node; only in checkpoints.
        exhausted: The limit that has stopped something; only in checkpoints.
        not_chosen: IDs of tool calls that only trajectories made that were not chosen: they are no evidence.
    """

    node: Literal["", "model", "approve", "tools", "verify"] = ""
    messages: tuple[Message, ...] = ()
    solution: Solution | None = None
    verification: Verification | None = None
    num_repairs: int = 0
    previous: VerifiedAttempt | None = None
    usage: RunUsage | None = None
    degraded: tuple[str, ...] = ()
    exhausted: LimitKind | None = None
    not_chosen: tuple[str, ...] = ()

    def after(self, update: StateUpdate) -> Self:
        """The state after a node."""
        messages = (*self.messages, *update.get("messages", ()))
        return self.model_copy(update={**update, "messages": messages})

    @property
    def num_turns(self) -> int:
        """Number of model turns so far."""
        return sum(message.role == "assistant" for message in self.messages)

    @property
    def last_solution(self) -> Solution:
        """The solution, once a model turn has ended."""
        assert self.solution is not None
        return self.solution


StateUpdate = dict[str, Any]
"""Fields of the state that a node has set; `messages` are those to append."""


@dataclass
class LoopContext:
    """What the nodes of a run work with; `executor` is None without tools."""

    run: Run
    models: Models
    resources: RunResources
    executor: ToolExecutor | None = None
    state: LoopState = field(default_factory=LoopState)

    async def verifiers(self, state: LoopState) -> list[tuple[Verifier, VerifierContext]]:
        """The run's verifiers and what they work with."""
        question = self.run.question
        uses = None
        if self.executor is not None:
            uses = await self.executor.uses(state.not_chosen)
        elif question.offered_tools or question.continuation:
            uses = client_uses(question)
        verifying = self.resources.verifying
        assert verifying is not None or not self.resources.verifiers
        return [
            (one, replace(verifying.context(self.run, self.models, one.entailment), tool_uses=uses))
            for one in self.resources.verifiers
            if verifying is not None
        ]

    def history(self, messages: Sequence[Message]) -> str:
        """The hash of the conversation up to some messages after the question, by which intents are named."""
        return question_history(self.run.question, (*self.run.question.continuation, *messages))


# -- drivers


def next_node(state: LoopState, run: Run) -> NodeName | Literal["__end__"]:
    """The node that follows."""
    if state.node == "approve":
        return "tools"
    if state.node == "verify":
        return "model" if should_repair(state, run) else END
    if state.node in ("", "tools"):
        return "model"
    if state.messages and state.messages[-1].tool_calls:
        return "approve"
    return "verify" if run.config.verify else END


async def run_node(name: NodeName, state: LoopState, context: LoopContext) -> StateUpdate:
    """Run one node, with its events in the trace and saved at its end.

    Raises:
        Waiting: Its tool calls need decisions or results; the node is run again when they are there.
    """
    run = context.run
    if name in ("model", "verify"):
        started = monotonic()
        stage = _stage(name, state, run)
        number = run.emit(StageStarted(stage=stage))
        with run.event_scope(number):
            update = await NODES[name](state, context)
        run.emit(StageFinished(stage=stage, seconds=monotonic() - started), parent=number)
    else:
        update = await NODES[name](state, context)
    update["node"] = name
    context.state = state.after(update)
    await run.save()
    return update


async def run_loop(
    state: LoopState,
    context: LoopContext,
    *,
    is_step: bool = False,
    checkpoint: Callable[[LoopState], Awaitable[None]] | None = None,
) -> LoopState:
    """Run the nodes to the end; as a step only the next one, unless the user wants the answer now.

    Args:
        checkpoint: Stores the state after each node.

    Raises:
        Waiting: Tool calls need decisions or results; `context.state` is the state before their node.
    """
    while (name := next_node(state, context.run)) != END:
        update = await run_node(name, state, context)
        state = state.after(update)
        if checkpoint is not None:
            await checkpoint(state.after(checkpointed({}, context.run)))
        if is_step and not context.run.ledger.is_closed:
            break
    return state


def checkpointed(update: StateUpdate, run: Run) -> StateUpdate:
    """The update of a node with what a resumed run needs besides."""
    ledger = run.ledger
    return {**update, "usage": ledger.usage(), "degraded": tuple(run.degraded), "exhausted": ledger.exhausted}


def _stage(name: NodeName, state: LoopState, run: Run) -> str:
    """The node's name in the trace. Each turn has its own, by which a replay finds the one that was concluded."""
    if name != "model":
        return name
    if run.config.tools or run.config.client_loop:
        return f"turn {state.num_turns + 1}"
    return "solve" if state.solution is None else "repair"


# -- model


async def model(state: LoopState, context: LoopContext) -> StateUpdate:
    """Let the strategy make a turn: tool calls, or an answer; a given answer is taken as it is.

    After a rejected answer it is shown the findings. If the models then fail altogether, the previous answer stays.
    """
    run, previous = context.run, state.previous
    if context.resources.strategy is None:
        text = given_text(run.config.parameters)
        solution = Solution(chosen=0, candidates=(Candidate(text=text, answer=text),))
        run.set_best(solution)
        return {"solution": solution}
    if run.config.trajectories > 1:
        return cast(StateUpdate, await RESOURCES.load("trajectories").run_trajectories(state, context))
    update: StateUpdate = {}
    question = run.question
    if state.node == "verify":
        assert state.verification is not None
        previous = VerifiedAttempt(solution=state.last_solution, verification=state.verification)
        update = {"previous": previous, "num_repairs": state.num_repairs + 1}
        if context.executor is None:
            question = with_findings(question, previous.solution, previous.verification)
        else:
            uses = await context.executor.uses(state.not_chosen)
            findings = findings_text(question, previous.solution, previous.verification, uses)
            update["messages"] = (Message(role="user", content=findings),)
    if context.executor is not None:
        question = _turn_question(state.after(update), context.executor, run)
    try:
        solution = await _turn(question, state, context, is_repair=previous is not None)
    except (BackendError, StoreError) as e:
        # a replay has no response where the run itself got an error
        if previous is None or (isinstance(e, StoreError) and run.recording):
            raise
        run.degrade("the answer could not be repaired: the models failed")
        return {**update, "solution": previous.solution}
    except BudgetExceeded as e:
        if previous is None or e.kind != "user":
            raise
        return {**update, "solution": previous.solution}
    run.emit(SolutionFinished(solution=solution))
    if context.executor is not None and solution.best is not None:
        update["messages"] = (*update.get("messages", ()), solution.best.message)
    return {**update, "solution": solution}


async def _turn(question: Question, state: LoopState, context: LoopContext, *, is_repair: bool) -> Solution:
    """The strategy's solution: of a turn that calls tools as it is, of any other with its answer in the final form."""
    run, strategy = context.run, context.resources.strategy
    assert strategy is not None
    solution = _ended(state, context)
    has_ended = solution is not None
    if solution is None:
        if state.node == "":
            require_features(strategy, context.models, question)
        try:
            solution = await fit_to_thinking(strategy, context.models, run).solve(question, context.models, run)
        except BudgetExceeded as e:
            if is_repair or e.kind != "user":
                raise
            solution = run.best or Solution(chosen=None, stopped="user")
            if context.executor is not None and solution.best is not None and solution.best.tool_calls:
                solution = Solution(chosen=None, stopped="user")  # no vote has decided about them
        if not is_repair and run.conclusion is not None and run.conclusion.stage == _stage("model", state, run):
            run.conclude()  # no call came after it
        report_cut_candidates(solution, run.config.parameters, run)
        if context.executor is not None and solution.best is not None and solution.best.tool_calls:
            run.set_best(Solution(chosen=None))  # calls are no answer
            return _with_one_call(solution, question) if run.config.one_call else solution
    has_answer = solution.best is not None and solution.best.answer is not None
    is_cut = has_ended or run.ledger.exhausted or run.partial_completions
    if not is_repair and (run.ledger.is_closed or (not has_answer and is_cut)):
        solution = await conclude_run(solution, question, context.models.main, run)
    if not is_repair:
        run.set_best(solution)
    max_tokens = max_json_tokens(run.config.parameters)
    solution = await with_json_answer(solution, question, context.models.main, run, max_tokens=max_tokens)
    if not is_repair:
        run.set_best(solution)
    return solution


def _with_one_call(solution: Solution, question: Question) -> Solution:
    def first(candidate: Candidate) -> Candidate:
        calls = candidate.tool_calls[:1]
        update = {"tool_calls": calls, "answer": normalized_calls(calls, question.tools)}
        return candidate.model_copy(update=update) if calls else candidate

    return solution.model_copy(update={"candidates": tuple(map(first, solution.candidates))})


def _turn_question(state: LoopState, executor: ToolExecutor, run: Run) -> Question:
    """The question of the next turn of a run with tools."""
    question = run.question
    has_cut_result = any(f"; {READ_RESULT}(call=" in message.content for message in state.messages)
    declared = tuple(
        tool.declaration.model_copy(update={"effect": tool.effect})
        for name, tool in executor.tools.items()
        if name != READ_RESULT or has_cut_result
    )
    choice = question.tool_choice if state.num_turns == 0 or question.tool_choice == TOOL_CHOICE_NONE else "auto"
    return question.model_copy(
        update={
            "tools": (*question.tools, *declared),
            "tool_choice": choice,  # a forced call is forced once
            "continuation": (*question.continuation, *state.messages),
        }
    )


def _ended(state: LoopState, context: LoopContext) -> Solution | None:
    """The solution to conclude in place of another turn, once the loop has ended; None while it goes on."""
    ledger = context.run.ledger
    if context.executor is None:
        return None
    if state.node == "tools":
        if ledger.is_closed:
            return Solution(chosen=None, stopped="user")
        if context.executor.tools and repetition(state.messages) == "end":  # a client knows why it looks again
            return Solution(chosen=None, stopped="loop")
        if ledger.remaining("turns") < 1:
            context.run.record_limit(ledger.exceeded("turns"))
        if ledger.exhausted in ("turns", "tool_calls"):
            return Solution(chosen=None, stopped="budget")
    ledger.count("turns")
    return None


# -- approve and tools


async def approve(state: LoopState, context: LoopContext) -> StateUpdate:
    """Get the decisions that the last turn's calls need, after the check of those that change something."""
    executor, turn, history, calls = _last_calls(state, context)
    if context.run.config.check_writes is not None:
        await RESOURCES.load("write_check")(context, turn, history, state.messages)
    await executor.prepare(turn, history, calls)
    return {}


async def tools(state: LoopState, context: LoopContext) -> StateUpdate:
    """Execute the last turn's calls; a model that only repeats itself is told so.

    It asks too: a run whose process was killed here continues here.
    """
    executor, turn, history, calls = _last_calls(state, context)
    results = await executor.execute(turn, history, calls)
    if executor.tools and repetition((*state.messages, *results)) == "warn":
        results.append(Message(role="user", content=_REPEATED))
    return {"messages": tuple(results)}


def _last_calls(state: LoopState, context: LoopContext) -> tuple[ToolExecutor, int, str, Sequence[ToolCall]]:
    assert context.executor is not None
    *before, last = state.messages
    return context.executor, state.num_turns - 1, context.history(before), last.tool_calls


def repetition(messages: Sequence[Message]) -> Literal["", "warn", "end"]:
    """Whether the turns only repeat themselves: "warn" tells the model, "end" ends the run.

    Differs from "the same call with the same result three times": only turns running count, since agents rightly look
    twice at what a write has changed in between.
    """
    turns: list[list[tuple[str, str]]] = []
    for message in messages:
        if message.role == "assistant" and message.tool_calls:
            names = [canonical_calls([call]) for call in message.tool_calls]
            turns.append([])
        elif message.role == "tool":
            turns[-1].append((names[len(turns[-1])], message.content))
    seen: set[tuple[str, str]] = set()
    rejections: Counter[str] = Counter()
    without_news = 0
    for turn in turns:
        without_news = without_news + 1 if seen.issuperset(turn) else 0
        seen.update(turn)
        rejections.update(call for call, result in turn if result.startswith(REJECTED))
    equal = len(list(takewhile(lambda turn: turn == turns[-1], reversed(turns))))
    if (
        equal > MAX_EQUAL_TURNS
        or without_news >= MAX_TURNS_WITHOUT_NEWS
        or max(rejections.values(), default=0) >= MAX_REJECTIONS
    ):
        return "end"
    return "warn" if equal == MAX_EQUAL_TURNS else ""


# -- verify


async def verify(state: LoopState, context: LoopContext) -> StateUpdate:
    """Run the verifiers one after the other.

    Of several attempts the best verified one stays. Tool calls state nothing that could be verified: they stay
    unchecked. So does an answer that the user wanted at once.
    """
    run, solution = context.run, state.last_solution
    is_concluded = run.ledger.is_closed or solution.stopped == "user"
    if is_concluded and state.previous is not None and state.previous.solution == solution:
        return {"verification": state.previous.verification}
    if is_concluded or (solution.best is not None and solution.best.tool_calls):
        verification = Verification(verdict="unchecked")
    else:
        verifiers = await context.verifiers(state)
        verification = combined([await verifier.verify(run.question, solution, own) for verifier, own in verifiers])
    run.emit(VerificationFinished(verification=verification))
    best = better_attempt(state.previous, solution, verification, run)
    return {"solution": best.solution, "verification": best.verification}


def should_repair(state: LoopState, run: Run) -> bool:
    """Whether there are new findings for the strategy, and repairs and budget left."""
    verification = state.verification
    if verification is None or state.num_repairs >= run.config.repairs or run.ledger.exhausted:
        return False
    if state.previous is not None and state.previous.solution == state.solution:
        return False  # with the same findings the strategy would give the same answer
    return has_findings(verification)


NODES: Final[dict[NodeName, Callable[[LoopState, LoopContext], Awaitable[StateUpdate]]]] = {
    "model": model,
    "approve": approve,
    "tools": tools,
    "verify": verify,
}
