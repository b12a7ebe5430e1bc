"""Runs for the viewer's tests: with hostile texts in every place, and with every kind of event."""

from __future__ import annotations

from reason.core.events import (
    ApprovalDecided,
    ApprovalRequested,
    AssociatedItem,
    BudgetCharged,
    BudgetExhausted,
    CallFinished,
    CallStarted,
    CandidateAdded,
    ClaimChecked,
    ClaimLabelled,
    Degraded,
    Event,
    EventsDropped,
    JuryStageEnded,
    LeafSelected,
    MemoryAssociated,
    NodesSearched,
    OpinionAdded,
    OpinionsMerged,
    OpinionsRanked,
    ReviewAdded,
    RunFinished,
    RunStarted,
    RunWaiting,
    SampleFinished,
    SearchEnded,
    SearchNode,
    SolutionFinished,
    StageFinished,
    StageStarted,
    StepRouted,
    StepsScored,
    StrategyNote,
    TextDelta,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    VerificationFinished,
    VoteUpdated,
)
from reason.core.messages import Completion, Failure, Thought, ToolCall, Usage
from reason.core.types import (
    Answer,
    AnswerCandidate,
    Candidate,
    CheckedClaim,
    Evidence,
    PendingToolCall,
    Question,
    RoleUsage,
    RunUsage,
    Solution,
    Verification,
)

from support.verified_text import report_of

EVIL = (
    "</script></title></svg><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"
    "<a href=javascript:window.pwned=1>javascript:window.pwned=1</a>\"'`&lt;--><!--\u2028\u2029]]>${1}{{1}}\u202e\u0627"
)


def numbered(events: list[Event], run_id: str = "r") -> list[Event]:
    """Events as a run emits them: numbered, those of a call under it, the others under the stage."""
    stage: int | None = None
    call: int | None = None
    done: list[Event] = []
    for number, event in enumerate(events, 1):
        parent = stage
        if isinstance(event, StageStarted):
            parent, stage, call = None, number, None
        elif isinstance(event, (RunStarted, RunFinished)):
            parent = None
        elif isinstance(event, (TextDelta, SampleFinished, StepsScored, BudgetCharged, CallFinished)):
            parent = call
        elif isinstance(event, CallStarted):
            call = number
        stamp = {"number": number, "parent": parent, "run_id": run_id, "at_s": 0.5 * number}
        done.append(event.model_copy(update=stamp))
    return done


def evil_run(evil: str) -> list[Event]:
    """A run that says `evil` wherever a model, a user or a file could say something."""
    done = Completion(
        text=evil, token_ids=(1, 2), logprobs=(-0.01, -3.0), finish_reason="stop", usage=Usage(completion_tokens=2),
        thought=Thought(text=evil, tokens=1),
    )  # fmt: skip
    failed = Completion(text="", finish_reason="error", failure=Failure(code=evil, message=evil), sample_index=1)
    proof = Evidence(source=evil, text=evil)
    claim = CheckedClaim(
        text=evil, verdict="supported", confidence=0.5, evidence=(proof,), start=0, end=len(evil), note=evil,
        origins=(evil,),
    )  # fmt: skip
    verification = Verification(verdict="supported", support=0.5, claims=(claim,), verifiers=(evil,))
    answer = Answer(
        answer=evil, text=evil + " ", strategy=evil, model=evil, confidence=0.5, stopped="done", run_id=evil, seed=1,
        candidates=(AnswerCandidate(text=evil, answer=evil, score=1.0, logprob=-3.01, tokens=2, thought=evil),),
        thought=evil, based_on=evil, verification=verification, degraded=(evil,), citations=(proof,),
        selected_strategy=evil,
        usage=RunUsage(completion_tokens=2, by_role={f"main:{evil}": RoleUsage(model=evil, completion_tokens=2)}),
    )  # fmt: skip
    report = report_of("Rain is wet.", "Rain is wet.", "supported", "supports", evil).model_dump(mode="json")
    report["claim"]["text"] = report["passages"][0]["text"] = report["passages"][0]["title"] = evil
    opinion = {"ok": True, "model": evil, "role": evil, "text": evil, "choice": evil}
    issue = {"candidate": 0, "kind": evil, "detail": evil}
    review = {"ok": True, "scores": [{"candidate": 0, "accuracy": 1, "insight": 2, "clarity": 3}], "issues": [issue]}
    merged = {"source": evil, "answer": evil, "rationale": [evil], "open_questions": [evil], "choice": evil,
              "disagreements": [{"topic": evil, "resolution": evil}]}  # fmt: skip
    nodes = (
        SearchNode(id=0, parent=None, depth=0, values={evil: 0.5}),
        SearchNode(id=1, parent=0, depth=1, text=evil, score=0.5, values={evil: float("inf")}),
        SearchNode(id=2, parent=7, depth=3, text=evil, score=float("nan"), terminal=True, forced=True),
    )
    asked = Question(text=evil, choices=(evil, evil))
    block = {"block": evil, "letter": evil, "vote": 0, "state": [1]}
    label = {"claim": {"text": evil, "start": 0}, "label": evil, "note": evil, "support": [0]}
    solved = Solution(chosen=0, candidates=(Candidate(text=evil, answer=evil, thought=evil),), notes={evil: evil})
    calls = (ToolCall(name=evil, arguments=evil), ToolCall(name=evil, arguments=evil))
    called = Solution(chosen=0, candidates=(Candidate(text=evil, thought=evil, tool_calls=calls),))
    pending = PendingToolCall(id="2", tool=evil, arguments=evil, effect="write", question="outcome")
    known = AssociatedItem(text=evil, source_id=evil, score=0.5)
    return numbered(
        [
            RunStarted(question=asked, strategy=evil, models={"main": evil, evil: evil}, seed=1),
            StageStarted(stage=evil),
            CallStarted(role=evil, model=evil, operation=evil, requests=1, samples=2, replayed=1, max_tokens=9),
            TextDelta(request=0, sample=0, text=evil[:3], tokens=1),
            TextDelta(request=0, sample=0, text=evil[3:], tokens=1),
            SampleFinished(request=0, sample=0, completion=done),
            SampleFinished(request=0, sample=1, completion=failed),
            StepsScored(role=evil, model=evil, log_odds=((1.0,),)),
            CallFinished(role=evil, model=evil, seconds=0.5, tokens=2, failed=1),
            BudgetCharged(role=evil, model=evil, tokens=2, calls=1, total_tokens=2, total_calls=1, total_usd=None,
                          limits={"tokens": 4, "seconds": 60}),
            BudgetExhausted(kind="tokens", used=4, limit=4),
            CandidateAdded(index=0, answer=evil),
            VoteUpdated(votes={evil: 1}, total=2),
            LeafSelected(search=evil, path=(0,)),
            MemoryAssociated(search=evil, node=1, query=evil, items=(known,), dropped={evil: 1}),
            NodesSearched(search=evil, nodes=nodes, expanded=(0,)),
            SearchEnded(search=evil, chosen=1, stopped=evil, cost={evil: 3}),
            StepRouted(index=0, role=evil, model=evil, reason=evil, kind=evil),
            StrategyNote(strategy=evil, name=evil, data={evil: [evil]}),
            StrategyNote(strategy=evil, name="workers.begin", data={"names": [evil], "writing": [evil]}),
            StrategyNote(strategy=evil, name="workers.step", data={"worker": 0, "text": evil, "next": evil}),
            StrategyNote(strategy=evil, name="workers.answer", data={"worker": 0, "answer": evil}),
            StrategyNote(strategy=evil, name="block.run", data=block),
            StrategyNote(strategy=evil, name="auto.chosen", data={"selected_strategy": evil, "why": evil}),
            OpinionAdded(juror=0, report=opinion),
            OpinionAdded(juror=1, report={"ok": False, "model": evil, "failure": evil}),
            ReviewAdded(reviewer=1, report=review),
            OpinionsRanked(report={"rule": evil, "standings": [{"juror": 0, "score": 1.0}]}),
            OpinionsMerged(report=merged),
            ClaimLabelled(index=0, report=label),
            JuryStageEnded(stage=evil, num_requests=2, num_responses=1, report={}),
            Degraded(what=evil),
            SolutionFinished(solution=solved),
            StageFinished(stage=evil, seconds=1.0),
            StageStarted(stage="turn 1"),
            SolutionFinished(solution=called),
            StageFinished(stage="turn 1", seconds=1.0),
            ApprovalRequested(call="1", tool=evil, arguments=evil, question="approval"),
            ApprovalDecided(call="1", tool=evil, decision="approve", by=evil),
            ToolStarted(call="1", tool=evil, arguments=evil, effect="write", turn=0),
            ToolProgress(call="1", tool=evil, text=evil),
            ToolFinished(call="1", tool=evil, text=evil),
            RunWaiting(pending=(pending,)),
            StageStarted(stage="verify"),
            ClaimChecked(index=0, report=report),
            VerificationFinished(verification=verification),
            EventsDropped(count=2),
            RunFinished(answer=answer),
        ],
        evil,
    )  # fmt: skip


def answer_of(text: str, answer: str = "x", **fields: object) -> Answer:
    """A plain answer."""
    plain = {
        "answer": answer, "text": text, "strategy": "cot", "model": "m", "confidence": None, "stopped": "done",
        "candidates": (), "verification": None, "usage": RunUsage(), "run_id": "r", "seed": 1,
    }  # fmt: skip
    return Answer.model_validate({**plain, **fields})
