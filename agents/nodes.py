"""The stages of the pipeline: route, solve, verify, repair, finish. Each returns what it adds to the state."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

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


async def route(state: State, pipeline: Pipeline) -> State:
    """Decide the strategy: the one that was asked for."""
    return {"strategy": pipeline.run.config.strategy}


async def solve(state: State, pipeline: Pipeline) -> State:
    """Run the strategy; an answer that was given is taken as it is."""
    solution = await solved(Question.model_validate(state["question"]), state["strategy"], pipeline)
    return {"solution": solution.model_dump(mode="json")}


async def solved(question: Question, named: str, pipeline: Pipeline) -> Solution:
    """What the strategy of that name finds."""
    if named == GIVEN:
        given = given_solution(pipeline.parameters)
        pipeline.run.offer(given)
        return given
    strategy, _ = make_strategy(named, pipeline.parameters)
    require_features(strategy, pipeline.models, question)
    solution = await strategy.solve(question, pipeline.models, pipeline.run)
    pipeline.run.offer(solution)
    pipeline.run.emit(SolutionFound(solution=solution))
    return solution


async def verify(state: State, pipeline: Pipeline) -> State:
    """Run the verifiers one after the other; without one, pass the answer through.

    Of several attempts the best verified one goes on (see `repairing`). A call of tools states nothing that could be
    verified: it stays unchecked.
    """
    run, names = pipeline.run, pipeline.run.config.verify
    if not names:
        return {"verification": None}
    question, solution = Question.model_validate(state["question"]), Solution.model_validate(state["solution"])
    if solution.best is not None and solution.best.tool_calls:
        unchecked = Verification(verdict="unchecked")
        run.emit(Verified(verification=unchecked))
        return keep_the_better(state, unchecked, run)
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
    verification = None if state.get("verification") is None else verification_of(state)
    answer = finished(pipeline.run, Solution.model_validate(state["solution"]), state["strategy"], verification)
    return {"answer": answer.model_dump(mode="json")}


def finished(run: Run, solution: Solution, strategy: str, verification: Verification | None) -> Answer:
    """The answer of a run that came to its end. Arguments as `assemble`.

    Raises:
        NotVerified: A verified answer is required and this one is not.
    """
    answer = assemble(run, solution, strategy=strategy, verification=verification)
    if run.config.require_verified and (verification is None or verification.verdict != "supported"):
        verdict = verification.verdict if verification is not None else "unchecked"
        raise NotVerified(f"the answer is not verified: {verdict.replace('_', ' ')}", partial=answer)
    return answer


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
            AnswerCandidate(
                text=c.text,
                answer=c.answer,
                score=c.score,
                logprob=c.logprob,
                tokens=c.tokens,
                tool_calls=c.tool_calls,
            )
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
        tool_calls=() if best is None else best.tool_calls,
    )


async def answer_unverified(pipeline: Pipeline) -> Answer:
    """All stages of a run that verifies nothing, one after the other; the trace tells the same of them.

    Between two of them there is nothing that a checkpoint would save: all that costs anything is in `solve`, whose
    calls are in the run store one by one. So they are no steps of the graph, each of which costs as much of the
    processor as a few model calls do, and hand on what they have as it is.

    Raises:
        NotVerified: A verified answer is required.
    """
    run = pipeline.run
    async with told(run, "route"):
        strategy = run.config.strategy
    async with told(run, "solve"):
        solution = await solved(run.question, strategy, pipeline)
    async with told(run, "verify"):
        verification = None
    async with told(run, "finish"):
        answer = finished(run, solution, strategy, verification)
    return answer  # noqa: RET504 (the stage has to end before)


@asynccontextmanager
async def told(run: Run, stage: str) -> AsyncIterator[None]:
    """Tell of a stage in the trace, and have what was told stored at its end."""
    started = time.monotonic()
    number = run.emit(StageStarted(stage=stage))
    with run.under(number):
        yield
    run.emit(StageFinished(stage=stage, seconds=time.monotonic() - started), parent=number)
    await run.save_events()


def resume_costs(run: Run, state: State) -> None:
    """Take over what an interrupted run had spent and lost up to its last checkpoint."""
    if "usage" in state:
        run.ledger.restore(RunUsage.model_validate(state["usage"]))
    run.degraded = list(state.get("degraded", []))
    if "solution" in state:
        run.offer(Solution.model_validate(state["solution"]))
