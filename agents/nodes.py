"""The stages of the pipeline: route, solve, verify, repair, finish. Each returns what it adds to the state."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from langgraph.runtime import Runtime

from ..core.answer import Answer, AnswerCandidate, RunUsage, Solution, Verification
from ..core.errors import BackendError, NotVerified, StoreError
from ..core.events import SolutionFound, StageFinished, StageStarted, Verified
from ..core.question import Question
from ..core.run import Run
from ..reasoning.strategy import make_strategy, require_features
from ..verify.verifier import make_verifier
from .given import GIVEN, given_solution
from .repairing import keep_the_better, together, verification_of, with_findings
from .state import Pipeline, State

Stage = Callable[[State, Pipeline], Awaitable[State]]


class Node(Protocol):
    """A stage in the form that LangGraph calls."""

    def __call__(self, state: State, *, runtime: Runtime[Pipeline]) -> Awaitable[State]:
        """Run the stage."""


async def route(state: State, pipeline: Pipeline) -> State:
    """Decide the strategy: the one that was asked for."""
    return {"strategy": pipeline.run.config.strategy}


async def solve(state: State, pipeline: Pipeline) -> State:
    """Run the strategy; an answer that was given is taken as it is."""
    if state["strategy"] == GIVEN:
        given = given_solution(pipeline.parameters)
        pipeline.run.offer(given)
        return {"solution": given.model_dump(mode="json")}
    strategy, _ = make_strategy(state["strategy"], pipeline.parameters)
    require_features(strategy, pipeline.models)
    solution = await strategy.solve(Question.model_validate(state["question"]), pipeline.models, pipeline.run)
    pipeline.run.offer(solution)
    pipeline.run.emit(SolutionFound(solution=solution))
    return {"solution": solution.model_dump(mode="json")}


async def verify(state: State, pipeline: Pipeline) -> State:
    """Run the verifiers one after the other; without one, pass the answer through.

    Of several attempts the best verified one goes on (see `repairing`).
    """
    run, names = pipeline.run, pipeline.run.config.verify
    if not names:
        return {"verification": None}
    question, solution = Question.model_validate(state["question"]), Solution.model_validate(state["solution"])
    said: list[Verification] = []
    for name in names:
        verifier, _ = make_verifier(name, run.config.verify_parameters.get(name, {}))
        means = pipeline.verifying.means(run, pipeline.models, verifier.entailment)
        said.append(await verifier.verify(question, solution, means))
    verification = together(said)
    run.emit(Verified(verification=verification))
    return keep_the_better(state, verification, run)


async def repair(state: State, pipeline: Pipeline) -> State:
    """Have the strategy answer again, with what was found of its answer before it.

    Where that fails altogether, the answer that there is stands.
    """
    run = pipeline.run
    question = Question.model_validate(state["question"])
    told = with_findings(question, Solution.model_validate(state["solution"]), verification_of(state))
    strategy, _ = make_strategy(state["strategy"], pipeline.parameters)
    try:
        solution = await strategy.solve(told, pipeline.models, run)
    except (BackendError, StoreError) as e:
        # a replay has no reply where the run itself was refused one
        if isinstance(e, StoreError) and run.recording:
            raise
        run.degrade("the answer could not be repaired: the models failed")
        solution = Solution.model_validate(state["solution"])
    else:
        run.emit(SolutionFound(solution=solution))
    kept = {"solution": state["solution"], "verification": state["verification"]}
    return {"solution": solution.model_dump(mode="json"), "repairs": state.get("repairs", 0) + 1, "kept": kept}


async def finish(state: State, pipeline: Pipeline) -> State:
    """Put the answer together."""
    run = pipeline.run
    verification = None if state.get("verification") is None else verification_of(state)
    answer = assemble(
        run, Solution.model_validate(state["solution"]), strategy=state["strategy"], verification=verification
    )
    if run.config.require_verified and (answer.verification is None or answer.verification.verdict != "supported"):
        verdict = answer.verification.verdict if answer.verification is not None else "unchecked"
        raise NotVerified(f"the answer is not verified: {verdict.replace('_', ' ')}", partial=answer)
    return {"answer": answer.model_dump(mode="json")}


def assemble(run: Run, solution: Solution | None, *, strategy: str, verification: Verification | None = None) -> Answer:
    """The answer as the user gets it, whole or partial.

    Args:
        run: The run.
        solution: What the strategy found; None if it found nothing before it was stopped.
        strategy: Name of the strategy.
        verification: What the verifiers say.
    """
    solution = solution or Solution(chosen=None, stopped="cancelled")
    best = solution.best
    checked = verification.confidence if verification is not None else None
    confidence = solution.confidence if checked is None else checked
    curve = run.config.calibration
    return Answer(
        answer=None if best is None else best.answer,
        text="" if best is None else best.text,
        strategy=strategy,
        model=run.config.models.get("main", ""),
        confidence=confidence,
        stopped=solution.stopped,
        candidates=tuple(
            AnswerCandidate(text=c.text, answer=c.answer, score=c.score, logprob=c.logprob, tokens=c.tokens)
            for c in solution.candidates
        ),
        verification=verification,
        usage=run.ledger.usage(),
        run_id=run.id,
        seed=run.seed,
        degraded=tuple(run.degraded),
        calibrated_confidence=None if curve is None or confidence is None else curve.apply(confidence),
        calibration="" if curve is None else str(curve),
        citations=() if best is None else best.citations,
        ran=str(solution.notes.get("ran", "")),
    )


def as_node(name: str, stage: Stage) -> Node:
    """A stage as a LangGraph node: told in the trace, its cost checkpointed with its result."""

    async def node(state: State, *, runtime: Runtime[Pipeline]) -> State:
        run = runtime.context.run
        started = time.monotonic()
        number = run.emit(StageStarted(stage=name))
        with run.under(number):
            added = await stage(state, runtime.context)
        run.emit(StageFinished(stage=name, seconds=time.monotonic() - started), parent=number)
        await run.save_events()
        return {**added, "usage": run.ledger.usage().model_dump(mode="json"), "degraded": list(run.degraded)}

    return node


def resume_costs(run: Run, state: State) -> None:
    """Take over what an interrupted run had spent and lost up to its last checkpoint."""
    if "usage" in state:
        run.ledger.restore(RunUsage.model_validate(state["usage"]))
    run.degraded = list(state.get("degraded", []))
    if "solution" in state:
        run.offer(Solution.model_validate(state["solution"]))
