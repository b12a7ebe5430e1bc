"""Finished runs in a store, without a model."""

from __future__ import annotations

from reason.core.events import (
    CallFinished,
    MemorySink,
    SolutionFinished,
    StageFinished,
    StrategyNote,
    VerificationFinished,
)
from reason.core.run import Run, RunConfig
from reason.core.types import Answer, Candidate, Question, RunUsage, Solution, Verification
from reason.reasoning.strategy import create_strategy


class RunLog:
    """Writes finished runs as the pipeline would."""

    def __init__(self, store):
        self.store, self.count = store, 0

    async def add(
        self,
        text,
        answer="4",
        *,
        strategy="cot",
        parameters=None,
        tokens=10,
        verdicts=(),
        confidence=None,
        shadow=None,
        notes=None,
        models=None,
        identity="m@1",
        stopped="done",
        finish="finished",
        **config,
    ):
        self.count += 1
        name = f"run-{self.count}"
        complete = create_strategy(strategy, parameters or {})[1]
        planned = RunConfig(
            question=Question(text=text, kind="number"),
            strategy=strategy,
            parameters=complete,
            models=models or {"main": "m"},
            seed=1,
            **config,
        )
        await self.store.create_run(name, planned.model_dump(mode="json"))
        await self.store.set_identities(name, {"main": {"identity": identity}})
        run = Run(name, planned, self.store, sinks=[sink := MemorySink()])
        solution = Solution(
            chosen=0,
            candidates=(Candidate(text=f"it is {answer}", answer=answer, tokens=tokens),),
            confidence=confidence,
        )
        for note, data in {**(notes or {}), **({} if shadow is None else {"auto.shadow": shadow})}.items():
            run.emit(StrategyNote(strategy=strategy, name=note, data=data))
        run.emit(CallFinished(role="main", model="m", seconds=0, tokens=tokens))
        run.emit(SolutionFinished(solution=solution))
        run.emit(StageFinished(stage="solve", seconds=0))
        last = answer
        for i, verdict in enumerate(verdicts):
            if i:  # a repair, whose answer is right
                last = "5"
                run.emit(CallFinished(role="main", model="m", seconds=0, tokens=1000))
                run.emit(SolutionFinished(solution=Solution(chosen=0, candidates=(Candidate(text="5", answer="5"),))))
            run.emit(CallFinished(role="main", model="m", seconds=0, tokens=100))  # the verifier's
            run.emit(VerificationFinished(verification=Verification(verdict=verdict)))
        result = Answer(
            answer=last,
            text=f"it is {last}",
            strategy=strategy,
            model="m",
            confidence=confidence,
            stopped=stopped,
            candidates=(),
            verification=None,
            usage=RunUsage(),
            run_id=name,
            seed=1,
        )
        await self.store.end_run(name, finish, result.model_dump(mode="json"), events=sink.events)
        return name
