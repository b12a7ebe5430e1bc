"""Other views of a run's page: answer, usage, votes, samples, workers, routing, blocks, jury, timeline, events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue
from reason.core.budget import Budget, Ledger
from reason.core.events import (
    BudgetCharged,
    BudgetExhausted,
    CallFinished,
    CallStarted,
    Event,
    JuryStageEnded,
    OpinionAdded,
    OpinionsMerged,
    OpinionsRanked,
    ReviewAdded,
    RunFailed,
    RunFinished,
    RunStarted,
    RunWaiting,
    SampleFinished,
    SolutionFinished,
    StageFinished,
    StageStarted,
    StepRouted,
    StrategyNote,
    TextDelta,
    ToolFinished,
    ToolStarted,
    VoteUpdated,
)
from reason.core.messages import Completion, Failure, Thought, ToolCall, Usage
from reason.core.types import (
    AnswerCandidate,
    Candidate,
    PendingToolCall,
    Question,
    RoleUsage,
    RunUsage,
    Solution,
)
from reason.sidecar.viewer.page import trace_html
from support.viewer_runs import answer_of, numbered

pytestmark = pytest.mark.nightly
Look = Callable[..., Any]
CELLS = "(rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
STARTED = RunStarted(question=Question(text="Why?"), strategy="cot", models={"main": "m"}, seed=1)
CALL = CallStarted(role="main", model="m", operation="generate", requests=1, samples=2, replayed=1, max_tokens=9)


@pytest.fixture
def seen(look: Look, tmp_path: Path) -> Any:
    """Show events in a tab; the fixture asserts that the browser reports no errors."""
    tab = look()

    def show(*events: Event, status: Any = None) -> Any:
        tab.show(trace_html(numbered(list(events)), status), tmp_path)
        return tab

    yield show
    tab.check()


def note(name: str, **data: JsonValue) -> StrategyNote:
    return StrategyNote(strategy="s", name=name, data=data)


def test_how_a_run_stands(seen: Any) -> None:
    def chip() -> str:
        text: str = tab.text(".chips .chip")
        return text

    tab = seen()
    assert tab.text("h1") == "A run that did not begin"
    assert tab.text("#answer .answer") == "The run was not finished."
    tab = seen(STARTED, status="interrupted")
    assert (tab.text("h1"), chip(), tab.text("#answer .answer")) == ("Why?", "interrupted", "The run was not finished.")
    tab = seen(STARTED, RunFailed(code="backend", message="it broke"))
    assert (chip(), tab.text("#answer .answer")) == ("failed", "The run failed: it broke")
    tab = seen(STARTED, StageStarted(stage="solve"), status="running")
    assert (chip(), tab.text("#answer .answer")) == ("running", "Thinking…")
    tab = seen(STARTED, VoteUpdated(votes={"4": 1, "42": 3}, total=5), status="running")
    assert tab.text("#answer .answer") == "42 leads so far"
    assert tab.texts(".votes li") == ["423", "41"]
    assert "5 candidates counted" in tab.text("#votes")
    partial = answer_of("So it is.", "yes", confidence=0.5, stopped="budget", degraded=("less",))
    tab = seen(STARTED, RunFinished(answer=partial))
    assert chip() == "budget"
    assert "confidence 0.50" in tab.texts(".chip")
    assert tab.text("#answer .answer") == "yes"
    assert tab.text("#answer .text") == "So it is."
    assert tab.text("#answer .note") == "Note: less"
    chosen = answer_of("It is the first.", "A", option="twenty-one")
    assert seen(STARTED, RunFinished(answer=chosen)).text("#answer .answer") == "twenty-one (A)"


def test_a_run_that_ended_without_an_answer_says_why(seen: Any) -> None:
    for stopped, text, said in (
        ("budget", "", "The budget was spent before there was an answer."),
        ("cancelled", "", "The run was cancelled before there was an answer."),
        ("budget", "So far so", "No answer was found in the text."),
        ("done", "", "No answer was found in the text."),
    ):
        none = answer_of(text, "x", stopped=stopped).model_copy(update={"answer": None})
        tab = seen(STARTED, RunFinished(answer=none), status="finished")
        assert tab.text("#answer .answer") == said
        assert tab.text(".chips .chip") == stopped
        assert tab.page.locator(".chip.good").count() == (stopped == "done")


def test_limits_and_usage(seen: Any) -> None:
    charged = BudgetCharged(
        role="main", model="m", tokens=2, calls=1, total_tokens=2, total_calls=1, total_usd=None,
        limits={"tokens": 4, "seconds": 60},
    )  # fmt: skip
    tab = seen(STARTED, CALL, charged, BudgetExhausted(kind="tokens", used=4, limit=4))
    assert tab.texts(".meter .n") == ["2 of 4", "2.0 of 60"]
    widths = tab.js("[...document.querySelectorAll('.meter .fill')].map((e) => [e.className, e.style.width])")
    assert widths[0] == ["fill full", "50%"]
    assert "The limit of tokens stopped it." in tab.text("#budget")
    assert tab.texts("#usage tbody tr td") == ["mainm", "1", "0", "0", "2", "0", "-", "-", "0.0 s"]


def test_the_table_of_usage_has_what_the_terminal_shows(seen: Any) -> None:
    ledger = Ledger(Budget())
    spent = Usage(prompt_tokens=12_000, cached_tokens=11_500, completion_tokens=80, thinking_tokens=30, cost_usd=0.25)
    ledger.charge("main", "local/a", spent, calls=3, replayed_tokens=20, working_s=0.75)
    ledger.charge("main", "local/a", Usage(prompt_tokens=1000, cached_tokens=900), calls=1)
    ledger.charge("judge", "local/b", Usage(prompt_tokens=7, cost_usd=None), calls=1)
    tab = seen(RunFinished(answer=answer_of("x", usage=ledger.usage().model_copy(update={"wall_seconds": 1.5}))))
    heads = ["role", "calls", "prompt", "cached", "generated", "thinking", "from store", "USD", "working"]
    assert tab.texts("#usage th") == heads
    rows = tab.page.locator("#usage tbody tr").evaluate_all(CELLS)
    assert rows == [
        ["mainlocal/a", "4", "13,000", "12,400", "80", "30", "20", "0.2500", "0.8 s"],
        ["judgelocal/b", "1", "7", "0", "0", "0", "0", "?", "0.0 s"],
        ["all", "5", "13,007", "12,400", "80", "30", "20", "?", "1.5 s wall"],
    ]


def sampled(deltas: bool = True) -> list[Event]:
    """A call whose first sample ends at the end of text and whose second sample failed."""
    done = Completion(
        text="a<b", token_ids=(1, 2, 3, 4), logprobs=(0.0, -0.5, -5.0, -1.0), finish_reason="stop",
        usage=Usage(completion_tokens=4),
    )  # fmt: skip
    failed = Completion(text="", finish_reason="error", failure=Failure(code="e", message="no luck"), sample_index=1)
    pieces = [TextDelta(request=0, sample=0, text=p, tokens=1) for p in ("a", "<", "b")] if deltas else []
    return [
        STARTED,
        StageStarted(stage="solve"),
        CALL,
        *pieces,
        SampleFinished(request=0, sample=0, completion=done),
        SampleFinished(request=0, sample=1, completion=failed, replayed=True),
        CallFinished(role="main", model="m", seconds=0.5, tokens=4, failed=1),
    ]


def thought_sample(text: str) -> list[Event]:
    """A call whose sample thinks in two tokens, one of them the closing tag, and answers in one."""
    done = Completion(
        text="7", token_ids=(1, 2, 3), logprobs=(-4.0, -4.0, -0.5), answer_from=2, finish_reason="stop",
        usage=Usage(completion_tokens=3, thinking_tokens=2), thought=Thought(text=text, tokens=2),
    )  # fmt: skip
    deltas = [TextDelta(request=0, sample=0, text="", thought=text, tokens=2)] if text else []
    return [
        STARTED.model_copy(update={"effort": "low", "thinking_tokens": 500}),
        StageStarted(stage="solve"),
        CALL,
        *deltas,
        TextDelta(request=0, sample=0, text="7", tokens=1),
        SampleFinished(request=0, sample=0, completion=done),
        CallFinished(role="main", model="m", seconds=0.5, tokens=3, thinking_tokens=2),
    ]


def test_a_thought_is_collapsed_and_apart_from_the_answer(seen: Any) -> None:
    candidate = AnswerCandidate(
        text="It is 7.", answer="7", score=None, logprob=None, tokens=3, thinking_tokens=2, thought="five and <two>"
    )
    early = {"based_on": "1 finished sample", "stopped": "user"}
    usage = RunUsage(completion_tokens=3, thinking_tokens=2)
    answer = answer_of("It is 7.", "7", thought="five and <two>", candidates=(candidate,), usage=usage, **early)
    tab = seen(*thought_sample("five and <two>"), RunFinished(answer=answer))
    assert tab.text("#answer .answer") == "7"
    thought = tab.page.locator("#answer .thought")
    assert thought.locator("summary").text_content() == "thought, 2 tokens"
    assert thought.get_attribute("open") is None
    assert not thought.locator(".text").is_visible()
    thought.locator("summary").click()
    assert thought.locator(".text").inner_text() == "five and <two>"
    assert tab.text("#based-on") == "Answered early: it rests on 1 finished sample."
    chips = tab.texts(".chip")
    assert chips[0] == "answered early"
    assert {"effort low", "most thinking 500", "thinking 2"} <= set(chips)
    assert "3 tokens, 2 thinking" in tab.text("#candidates summary")
    assert "-0.50 nats/token3 tokens, 2 thinking" in tab.text("#samples summary")  # of the answer alone
    tab.check()


def test_a_run_with_tools_is_a_conversation(seen: Any) -> None:
    cut = "x" * 300 + "\n[… 9,000 of 9,600 characters left out …]\n" + "x" * 300
    calls = (ToolCall(name="look", arguments='{"k": 1}'), ToolCall(name="book"), ToolCall(name="pay"))
    turn = Candidate(text="I look.", thought="hm", tool_calls=calls)
    pending = PendingToolCall(id="2", tool="book", arguments="{}", effect="write", question="approval")
    tab = seen(
        STARTED,
        StageStarted(stage="turn 1"),
        SolutionFinished(solution=Solution(chosen=0, candidates=(turn,))),
        StageFinished(stage="turn 1", seconds=1.5),
        ToolStarted(call="1", tool="look", arguments='{"k": 1}', effect="read", turn=0),
        ToolFinished(call="1", tool="look", text=cut, seconds=2.0),
        RunWaiting(pending=(pending,)),
        RunFinished(answer=answer_of("", stopped="waiting").model_copy(update={"answer": None})),
        status="waiting",
    )
    assert tab.texts("#conversation h3") == ["turn 1 0 tokens, 1.50 s"]
    assert tab.texts(".call > p") == ["lookreadexecutedcut2.00 s", "bookwritewaiting", "payproposed"]
    assert tab.text(".call pre") == '{\n  "k": 1\n}'
    assert not tab.page.locator(".call details pre").is_visible()
    assert tab.text("#answer .answer") == "The run waits for decisions about tool calls."
    assert tab.page.locator("#conversation button").count() == 0


def test_workers_stand_side_by_side(seen: Any) -> None:
    call = CallStarted(role="main", model="m", operation="workers", requests=2, samples=2, replayed=0)
    says = [TextDelta(request=w, sample=0, text=t, tokens=1) for w, t in ((0, "I "), (1, "You"), (0, "add."))]
    tab = seen(
        STARTED,
        note("workers.begin", names=["Ada", "Ben"], writing=["**Ada, step 1:** ", "**Ben, step 1:** "]),
        call,
        *says,
        note("workers.step", worker=0, number=1, text="**Ada, step 1:** I add.", next="**Ada, step 2:** "),
        note("workers.asked", worker=0, text="Twice? "),
        note("workers.answer", worker=1, answer="4"),
        note("workers.step", worker=9, text="x"),
        note("workers.step", worker="a"),
        note("workers.asked"),
        status="running",
    )
    assert tab.texts(".worker h3") == ["Ada 1 step", "Ben 0 steps"]
    assert tab.texts(".worker:first-child p") == ["**Ada, step 1:** I add.", "**Ada, step 2:** Twice? "]
    assert tab.texts(".worker:last-child p") == ["**Ben, step 1:** You", "answer: 4"]
    boxes = [tab.page.locator(".worker").nth(i).bounding_box() for i in range(2)]
    assert boxes[0]["y"] == boxes[1]["y"]


def test_the_ribbon_says_who_wrote_each_step_and_why(seen: Any) -> None:
    def wrote(index: int, role: str = "small", **how: Any) -> StepRouted:
        told = {"index": index, "role": role, "model": f"the-{role}", "tokens": 45, "reason": "entropy", **how}
        return StepRouted.model_validate(told)

    tab = seen(
        STARTED,
        wrote(0),
        wrote(0, entropy=0.42, threshold=1.0, kind="full"),  # restarted
        wrote(1, "main", score=3, reason="rejected"),
        wrote(2, "main", reason="large"),
    )
    assert tab.texts(".ribbon .who") == ["S", "L", "L"]
    assert "3 steps, 2 by the large model (90 tokens), 1 by the small one (45 tokens)" in tab.text("#routing")
    labels = tab.page.locator(".ribbon button").evaluate_all("(all) => all.map((e) => e.getAttribute('aria-label'))")
    assert labels == [
        "step 1: the small model the-small, 45 tokens: entropy 0.420 against 1 (full)",
        "step 2: the large model the-main, 45 tokens: rejected, score 3",
        "step 3: the large model the-main, 45 tokens: large",
    ]
    tab.page.focus(".ribbon button >> nth=1")
    tab.page.keyboard.press("Enter")
    assert tab.text("#routing .card") == labels[1]
    listed = tab.text("#events")
    assert all(label.split(": ", 1)[1] in listed for label in labels)


def test_blocks_stand_in_chains(seen: Any) -> None:
    def ran(letter: JsonValue, vote: JsonValue = 0) -> StrategyNote:
        return note("block.run", block="reason", letter=letter, state=[3, 2, 0], q=None, vote=vote)

    tab = seen(STARTED, ran("R"), ran("D", 1), ran("Rf"), ran(None), ran("Db", "x"))
    assert tab.texts(".chain") == ["attempt 1R reasonRf reason", "attempt 2D reason"]
    tab.page.click(".block.Rf")
    assert "state when it was chosen: 3 2 0" in tab.text("#blocks .card")
    notes = [text for text in tab.texts("#events summary") if "block.run" in text]
    assert "(s) block reason, letter R, state 3 2 0, vote 0" in notes[0]


def test_a_jury(seen: Any) -> None:
    score = {"candidate": 1, "accuracy": 8, "insight": 7, "clarity": 9}
    issue = {"candidate": 1, "kind": "factual_risk", "detail": "Not so."}
    review = {"ok": True, "scores": [score], "issues": [issue]}
    cost = {"calls": 2, "completion_tokens": 1200, "latency_ms": 1500}
    tab = seen(
        STARTED,
        OpinionAdded(juror=0, report={"ok": True, "model": "a", "role": "sceptic", "text": "I say B.", "choice": "B"}),
        OpinionAdded(juror=1, report={"ok": True, "model": "b", "role": "", "text": "I say C.", "choice": "C"}),
        OpinionAdded(juror=2, report={"ok": False, "model": "c", "failure": "too late"}),
        ReviewAdded(reviewer=0, report=review),
        ReviewAdded(reviewer=1, report={"ok": False, "failure": ""}),
        OpinionsRanked(report={"rule": "borda", "standings": [{"juror": 1, "score": 1.0}, {"juror": 0, "score": 0.5}]}),
        OpinionsMerged(report={"source": "fallback", "answer": "C it is.", "rationale": ["nobody else"]}),
        JuryStageEnded(stage="review", num_requests=3, num_responses=2, report=cost),
    )
    assert [t[:8] for t in tab.texts(".juror")] == ["juror #1", "juror #0", "juror #2"]  # by rank
    assert "a as sceptic" in tab.text(".juror:nth-child(2)")
    assert "none, too late" in tab.text(".juror:nth-child(3)")
    rows = tab.page.locator("#jury tbody tr").evaluate_all(CELLS)
    assert rows == [
        ["#0", "", "8/7/9", "-", "#1 factual risk: Not so."],
        ["#1", "-", "", "-", "could not be read: no marks"],
    ]
    assert "The best opinion, in the place of the chair" in tab.text("#jury .card")
    lines = " | ".join(tab.texts("#events summary"))
    for part in (
        "opinion #0 a as sceptic: B",
        "opinion #2 c: none, too late",
        "review by #0 #1 8/7/9; 1 issue",
        "review by #1 none that can be read: no marks",
        "ranking by borda: #1 1.00 > #0 0.50",
        "jury's answer C it is. (by the best opinion, in the place of the chair)",
        "review stage 2 of 3 replied, 2 calls, 1,200 tokens, 1.50 s, price unknown",
    ):
        assert part in lines, part


def test_events_are_a_tree_and_can_be_filtered(seen: Any) -> None:
    tab = seen(*sampled(), VoteUpdated(votes={"word": 1}, total=2), BudgetExhausted(kind="tokens", used=4, limit=4))
    listed = tab.text("#events")
    for part in (
        "run begins: cot on main: m, seed 1",
        "stage solve, not finished",
        "call generate as main, m, 2 samples (1 from the store): 4 tokens in 0.50 s, 8 tokens/s, 1 failed",
        "sample 1.1 4 tokens, stop, mean log-probability -1.625",
        "votes word x1 (of 2)",
        "budget spent the limit of 4 tokens is met (4 used)",
    ):
        assert part in listed, part
    assert "text.delta" not in listed
    under = "document.querySelector('#events details details details summary').textContent"
    assert "sample 1.1" in tab.js(under)  # under its call, under its stage
    tab.page.fill("#events input", "NO LUCK")
    assert len(tab.texts("#events .event")) == 1
    tab.page.fill("#events input", "word x1")
    assert len(tab.texts("#events .leaf, #events .event")) == 1
    assert "1 event of 8" in tab.text("#events .filter")
    tab.page.fill("#events input", "")
    tab.page.select_option("#events select", "sample.finished")
    assert len(tab.texts("#events .event")) == 2


def test_the_timeline_has_a_bar_for_each_stage_and_call(seen: Any) -> None:
    usage = RunUsage(by_role={"main:m": RoleUsage(model="m")})
    tab = seen(*sampled(), CALL.model_copy(update={"role": "judge"}), RunFinished(answer=answer_of("x", usage=usage)))
    titles = tab.texts(".timeline .bar title")
    assert [title.split(",")[0] for title in titles] == ["solve", "generate as main", "generate as judge"]
    assert "4 tokens" in titles[1]
    assert tab.texts("#timeline .legend > span") == [" main", " judge"]
