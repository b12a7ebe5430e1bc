"""The live view of a run: samples, budgets, votes, searches, routed steps, blocks, workers; and its plain lines."""

from __future__ import annotations

import io
import re
import sys

import pytest
from pydantic import JsonValue
from reason.cli.render.live import MAX_CHAINS, MAX_WRITERS, MIN_WORKER_LINES, LiveView
from reason.cli.render.run_progress import Progress
from reason.cli.render.text_stream import TextStream
from reason.core.events import (
    EVENT_ADAPTER,
    BudgetCharged,
    BudgetExhausted,
    CallFinished,
    CallStarted,
    Event,
    NodesSearched,
    RunStarted,
    SampleFinished,
    SearchEnded,
    SearchNode,
    StageStarted,
    StepRouted,
    StrategyNote,
    TextDelta,
    VoteUpdated,
)
from reason.core.messages import Completion, Usage
from reason.core.types import Question
from rich.console import Console
from support.step_search_events import search_events


def completion(tokens: int) -> Completion:
    return Completion(text="x", finish_reason="stop", usage=Usage(completion_tokens=tokens))


def call(number: int, samples: int, replayed: int = 0) -> CallStarted:
    return CallStarted(
        number=number, role="main", model="m", operation="generate", requests=1, samples=samples, replayed=replayed
    )


def charged(parent: int, total: int, calls: int = 1, **limits: float) -> BudgetCharged:
    return BudgetCharged(
        parent=parent,
        role="main",
        model="m",
        tokens=0,
        calls=1,
        total_tokens=total,
        total_calls=calls,
        total_usd=0.0,
        limits=limits,
    )


def delta(sample: int, tokens: int, at_s: float = 0.0, parent: int = 5) -> TextDelta:
    return TextDelta(parent=parent, request=0, sample=sample, text="x", tokens=tokens, at_s=at_s)


def sample(index: int, tokens: int, parent: int = 5, at_s: float = 0.0, replayed: bool = False) -> SampleFinished:
    return SampleFinished(
        parent=parent, request=0, sample=index, completion=completion(tokens), at_s=at_s, replayed=replayed
    )


def after(*events: Event) -> Progress:
    progress = Progress()
    for event in events:
        progress.take(event)
    return progress


def test_tokens_count_once_from_delta_to_charge() -> None:
    progress = after(call(5, 2), delta(0, 3), delta(1, 2))
    assert progress.tokens == 5
    progress.take(sample(0, 4))  # the last token showed no text
    assert progress.tokens == 6
    progress.take(sample(1, 2))
    progress.take(CallFinished(parent=5, role="main", model="m", seconds=1, tokens=6))
    assert progress.tokens == 6
    progress.take(charged(5, 6, tokens=50))
    assert progress.tokens == 6
    assert progress.limits == {"tokens": 50}
    assert (progress.samples_done, progress.samples_requested) == (2, 2)
    progress.take(call(9, 1))
    progress.take(delta(0, 1, parent=9))
    assert progress.tokens == 7


def thinks(sample: int, tokens: int) -> TextDelta:
    return TextDelta(parent=5, request=0, sample=sample, text="", thought="hm", tokens=tokens)


def test_thinking_tokens_count_once_from_delta_to_charge() -> None:
    progress = after(call(5, 2), thinks(0, 3), thinks(1, 2), delta(1, 4))
    assert (progress.tokens, progress.thinking_tokens) == (9, 5)
    assert progress.thinking_now == 3  # the second sample answers by now
    done = completion(9).model_copy(update={"usage": Usage(completion_tokens=9, thinking_tokens=7)})
    for index in (0, 1):
        progress.take(SampleFinished(parent=5, request=0, sample=index, completion=done))
    assert (progress.tokens, progress.thinking_tokens, progress.thinking_now) == (18, 14, None)
    progress.take(charged(5, 18).model_copy(update={"total_thinking_tokens": 14}))
    assert (progress.tokens, progress.thinking_tokens) == (18, 14)


def test_thoughts_that_the_backend_does_not_count() -> None:
    assert after(call(5, 1), thinks(0, 0)).thinking_now == 0
    assert after(call(5, 1), delta(0, 1)).thinking_now is None


def shown(view: LiveView) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    console.print(view.render())
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_view_shows_thinking_its_limit_and_what_keys_do() -> None:
    view = LiveView({"thinking_tokens": 40}, clock=lambda: 0.0)
    for event in (StageStarted(stage="solve"), call(5, 1), thinks(0, 30)):
        view(event)
    view.hint = "a: answer now"
    lines = [line.strip() for line in shown(view).splitlines()]
    assert "thinking… 30 tokens" in lines[0]
    assert any(line.startswith("thinking") and line.endswith("30/40") for line in lines)
    assert lines[-1] == "a: answer now"
    view.note("answering now")
    assert "answering now" in shown(view)
    view = LiveView(clock=lambda: 0.0)
    for event in (StageStarted(stage="solve"), call(5, 1), thinks(0, 0)):
        view(event)
    assert "thinking…" in shown(view)
    assert "tokens" not in shown(view).splitlines()[0]


def test_a_thought_is_not_streamed(capsys: pytest.CaptureFixture[str]) -> None:
    stream = TextStream(lambda: None, lambda: None)
    for event in (call(5, 1), thinks(0, 3), delta(0, 1)):
        stream(event)
    assert capsys.readouterr().out == stream.printed == "x"


def test_rate_is_over_the_last_seconds() -> None:
    progress = after(call(5, 1), *(delta(0, 10, at_s=t) for t in (0.0, 1.0, 9.0, 9.5, 10.0)))
    assert progress.rate(10.0) == pytest.approx(30.0)
    assert progress.rate(20.0) is None


def test_replayed_samples_do_not_count_for_the_rate() -> None:
    progress = after(call(5, 1, replayed=1), sample(0, 100, replayed=True, at_s=0.1))
    assert progress.tokens == 100
    assert not progress.rate(0.2)


def test_votes_and_limit() -> None:
    progress = after(
        StageStarted(stage="solve"),
        VoteUpdated(votes={"4": 3, "5": 1}, total=4),
        BudgetExhausted(kind="tokens", used=50, limit=50),
    )
    assert progress.stage == "solve"
    assert progress.votes == {"4": 3, "5": 1}
    assert progress.exhausted == "tokens"


def test_view_shows_samples_limits_and_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    view = LiveView({"tokens": 1000.0, "seconds": 60.0}, clock=lambda: now[0])
    started = RunStarted(
        question=Question(text="?"), strategy="self-consistency", models={"main": "local/tiny"}, seed=1
    )
    for event in (started, StageStarted(stage="solve"), call(5, 8), delta(0, 7), sample(0, 7)):
        view(event)
    view(VoteUpdated(votes={"[bold]4": 3, "\x1b[31m5": 1}, total=4))
    now[0] = 12.0
    screen = Console(file=io.StringIO(), width=100, force_terminal=False)
    screen.print(view.render())
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    for part in ("self-consistency", "local/tiny", "solve", "12.0 s", "1/8", "7/1,000", "12.0/60 s", "[bold]4 x3"):
        assert part in shown
    assert "\x1b" not in shown


def test_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with LiveView(clock=lambda: now[0]) as view:
        view(call(5, 8))
        for second in range(14):
            now[0] = float(second)
            view(delta(0, 10))
        assert capsys.readouterr().err == ""
        for second in range(14, 3600):
            now[0] = float(second)
            view(delta(0, 10))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "15 s: running, 0/8 chains, 160 tokens"
    assert len(lines) < 12


def test_no_animation_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from reason.cli.render.console import can_animate

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert not can_animate()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert can_animate()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not can_animate()


def test_scored_requests_are_not_samples() -> None:
    progress = Progress()
    progress.take(call(1, 4))
    progress.take(call(2, 10).model_copy(update={"operation": "next_token"}))
    assert progress.samples_requested == 4
    progress.take(charged(2, 0))
    assert list(progress.calls) == [1]


@pytest.mark.parametrize(
    ("stage", "shown"),
    [("downloading", "model 2.0 MB of 8.0 MB"), ("reading", "context 2,000,000 of 8,000,000 files")],
)
def test_units_of_loading_progress(stage: str, shown: str) -> None:
    view = LiveView()
    view.pulled(stage, 2_000_000, 8_000_000)
    screen = Console(width=100, file=io.StringIO())
    screen.print(view.render())
    words = " ".join(screen.file.getvalue().split())  # type: ignore[attr-defined]
    label, _, amount = shown.partition(" ")
    assert label in words
    assert f"{stage} {amount}" in words


def lines(progress: Progress) -> list[str]:
    return [search.line(name) for name, search in progress.searches.items()]


def test_search_progress_counts_nodes() -> None:
    events = search_events()
    assert lines(after(events[0])) == ["best-first: 1 expanded, 5 nodes, best 0.93"]
    assert lines(after(*events[:-1])) == ["best-first: 7 expanded, 24 nodes, 3 complete, best 0.95"]
    assert lines(after(*events)) == ["best-first: 7 expanded, 24 nodes, 3 complete, best 0.95, ended"]


def test_node_reported_again_counts_once() -> None:
    root = SearchNode(id=0, parent=None, depth=0)
    payload = NodesSearched(search="mcts", nodes=(root,), expanded=(0,))
    assert lines(after(payload, payload)) == ["mcts: 2 expanded, 1 node"]


def test_next_search_of_a_name_restarts_and_others_remain() -> None:
    first, end = search_events("a")[0], SearchEnded(search="a", stopped="budget")
    assert lines(after(first, end)) == ["a: 1 expanded, 5 nodes, best 0.93, ended: budget"]
    other = NodesSearched(search="b", expanded=(0, 1))
    progress = after(first, other, end, first)
    assert lines(progress) == ["b: 2 expanded, 0 nodes", "a: 1 expanded, 5 nodes, best 0.93"]


def test_view_has_one_line_per_search(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    now = [0.0]
    view = LiveView(clock=lambda: now[0])
    view(RunStarted(question=Question(text="?"), strategy="astar", models={"main": "m"}, seed=1))
    view(StageStarted(stage="solve"))
    now[0] = 20.0
    for event in [*search_events("[b]a\x1b[2J"), *search_events("c", ended=False)]:
        view(event)
    screen = Console(file=io.StringIO(), width=100, force_terminal=False)
    screen.print(view.render())
    assert isinstance(screen.file, io.StringIO)
    shown = [line.rstrip() for line in screen.file.getvalue().splitlines()]
    assert shown[1:3] == [
        "   search [b]a[2J: 7 expanded, 24 nodes, 3 complete, best 0.95, ended",
        "   search c: 7 expanded, 24 nodes, 3 complete, best 0.95",
    ]
    assert shown[4].startswith("   score  ")  # the tree of the last one
    message = capsys.readouterr().err.splitlines()
    assert message == ["20 s: solve, 0 tokens; [b]a[2J: 1 expanded, 5 nodes, best 0.93"]
    view.close()


ROUTED_RUN = RunStarted(number=1, question=Question(text="?"), strategy="glimprouter", models={"main": "m"}, seed=1)


def routed_step(index: int, role: str = "small", **how: object) -> StepRouted:
    return StepRouted.model_validate(
        {
            "number": index + 2,
            "index": index,
            "role": role,
            "model": f"the-{role}",
            "tokens": 45,
            "reason": "entropy",
            **how,
        }
    )


def render_steps(*events: Event) -> str:
    view = LiveView(clock=lambda: 1.0)
    for event in events:
        view(event)
    screen = Console(file=io.StringIO(), width=120, force_terminal=False)
    screen.print(view.render())
    shown: str = screen.file.getvalue()  # type: ignore[attr-defined]
    return shown


def test_step_models_are_counted_and_restart_with_the_chain() -> None:
    progress = Progress()
    for event in (routed_step(0), routed_step(1, "main"), routed_step(2)):
        progress.take(event)
    assert progress.writers == ["S", "L", "S"]
    progress.take(routed_step(0, "main"))
    assert progress.writers == ["L"]


def test_live_view_shows_routed_steps() -> None:
    assert "steps" not in render_steps(ROUTED_RUN)
    few = render_steps(ROUTED_RUN, routed_step(0), routed_step(1, "main"), routed_step(2))
    assert re.search("steps 3, 1 by the large model +SLS *$", few, re.MULTILINE)
    many = render_steps(ROUTED_RUN, *(routed_step(i) for i in range(MAX_WRITERS + 3)))
    assert re.search(f"steps {MAX_WRITERS + 3}, 0 by the large model +…S{{{MAX_WRITERS}}} *$", many, re.MULTILINE)


def test_plain_lines_show_routed_steps(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with LiveView(clock=lambda: now[0]) as view:
        view(routed_step(0, "main"))
        now[0] = 20.0
        view(routed_step(1))
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "20 s: running, 0 tokens; steps 2, 1 by the large model: LS"


def test_step_event_round_trips_through_json() -> None:
    event = routed_step(3, entropy=0.5, threshold=1.0, kind="top_k")
    assert EVENT_ADAPTER.validate_json(event.model_dump_json()) == event


BLOCK_RUN = RunStarted(number=1, question=Question(text="?"), strategy="rlot", models={"main": "m"}, seed=1)


def block_run(letter: JsonValue, vote: JsonValue = 0, number: int = 2) -> StrategyNote:
    data: dict[str, JsonValue] = {"block": "reason", "letter": letter, "state": [3, 2, 0], "q": None, "vote": vote}
    return StrategyNote(number=number, strategy="rlot", name="block.run", data=data)


def render_blocks(*events: Event) -> str:
    view = LiveView(clock=lambda: 1.0)
    for event in events:
        view(event)
    screen = Console(file=io.StringIO(), width=100, force_terminal=False)
    screen.print(view.render())
    shown: str = screen.file.getvalue()  # type: ignore[attr-defined]
    return shown


def test_blocks_are_counted_by_attempt() -> None:
    progress = Progress()
    for event in (block_run("R"), block_run("D", 1), block_run("Rf"), block_run(None), block_run("Db", "x")):
        progress.take(event)
    assert progress.chains == {0: ["R", "Rf"], 1: ["D"]}


def test_live_view_shows_blocks() -> None:
    assert "blocks" not in render_blocks(BLOCK_RUN)
    assert "blocks R Rf | D" in render_blocks(BLOCK_RUN, block_run("D", 1), block_run("R"), block_run("Rf"))
    many = render_blocks(BLOCK_RUN, *(block_run("R", vote) for vote in range(MAX_CHAINS + 3)))
    assert " | ".join(["R"] * MAX_CHAINS + ["…"]) in many


def test_plain_lines_show_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with LiveView(clock=lambda: now[0]) as view:
        view(block_run("R"))
        now[0] = 20.0
        view(block_run("\x1b[31mGa"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("20 s: running, 0 tokens; blocks R ")
    assert "\x1b" not in line


WORKER_RUN = RunStarted(number=1, question=Question(text="?"), strategy="hogwild", models={"main": "m"}, seed=1)
CALL = CallStarted(number=2, role="main", model="m", operation="workers", requests=2, samples=2, replayed=0)


def worker_note(name: str, **data: JsonValue) -> StrategyNote:
    return StrategyNote(number=3, strategy="hogwild", name=f"workers.{name}", data=data)


def worker_delta(worker: int, text: str) -> TextDelta:
    return TextDelta(number=4, parent=2, request=worker, sample=0, text=text, tokens=1)


BEGUN = (
    WORKER_RUN,
    worker_note("begin", names=["Ada", "Ben"], writing=["**Ada, step 1:** ", "**Ben, step 1:** "]),
    CALL,
)


def render_workers(*events: Event, width: int = 80, height: int = 24) -> list[str]:
    view = LiveView(clock=lambda: 1.0)
    for event in events:
        view(event)
    file = io.StringIO()
    # The spinner turns by the console's clock.
    Console(file=file, width=width, height=height, force_terminal=False, get_time=lambda: 0.0).print(view.render())
    return [line.rstrip() for line in file.getvalue().splitlines()]


def worker_columns(lines: list[str], width: int = 80) -> tuple[list[str], list[str]]:
    """The left and the right column below the names."""
    head = next(i for i, line in enumerate(lines) if line.startswith("Ada"))
    half = (width + 2) // 2
    return [line[:half].rstrip() for line in lines[head:]], [line[half:].rstrip() for line in lines[head:]]


def test_worker_texts_grow_side_by_side() -> None:
    left, right = worker_columns(
        render_workers(*BEGUN, worker_delta(0, "I "), worker_delta(1, "You add."), worker_delta(0, "add."))
    )
    assert (left[0], right[0]) == ("Ada", "Ben")
    assert (left[1], right[1]) == ("**Ada, step 1:** I add.", "**Ben, step 1:** You add.")


def test_worker_texts_continue_after_a_charge() -> None:
    booked = BudgetCharged(
        number=5, parent=2, role="main", model="m", tokens=2, calls=1, total_tokens=2, total_calls=1, total_usd=0.0
    )
    lines = render_workers(
        *BEGUN,
        worker_delta(0, "I "),
        worker_delta(1, "You"),
        booked,
        worker_delta(0, "add."),
        worker_delta(1, " look."),
    )
    left, right = worker_columns(lines)
    assert (left[1], right[1]) == ("**Ada, step 1:** I add.", "**Ben, step 1:** You look.")
    assert any("workers" in line and "4 tokens" in line for line in lines)


def test_finished_steps_and_injected_questions_are_shown() -> None:
    step = worker_note("step", worker=0, number=1, text="**Ada, step 1:** I add.", next="**Ada, step 2:** ")
    requested = worker_note("asked", worker=0, text="Twice? ")
    left, _ = worker_columns(
        render_workers(
            *BEGUN, worker_delta(0, "I add."), worker_delta(0, "\n\n"), step, requested, worker_delta(0, "no")
        )
    )
    assert left[1:3] == ["**Ada, step 1:** I add.", "**Ada, step 2:** Twice? no"]


def test_long_worker_texts_show_their_end_without_control_characters() -> None:
    long = " ".join(f"word{i}" for i in range(400)) + "\x1b[2J"
    lines = render_workers(*BEGUN, worker_delta(0, long), height=12)
    left, right = worker_columns(lines)
    assert "word399" in left[-1] + left[-2]
    assert "word0 " not in "".join(left)
    assert len(left) == 1 + max(MIN_WORKER_LINES, 6)
    assert "\x1b" not in "".join(lines)
    assert right[1] == "**Ben, step 1:**"


def test_narrow_terminal_shows_as_many_workers_as_fit() -> None:
    names = [f"W{i}" for i in range(8)]
    lines = render_workers(
        WORKER_RUN, worker_note("begin", names=names, writing=[f"{n} text" for n in names]), width=80
    )
    assert "W2 text" in "\n".join(lines)
    assert "W3 text" not in "\n".join(lines)
    assert lines[-1] == "… 5 more"


@pytest.mark.parametrize(
    "broken",
    [
        worker_note("begin", names="Ada", writing=[]),
        worker_note("step", worker=9, text="x"),
        worker_note("step", worker="a"),
        worker_note("asked"),
    ],
)
def test_malformed_worker_notes_are_ignored(broken: StrategyNote) -> None:
    assert render_workers(*BEGUN, broken) == render_workers(*BEGUN)


def test_plain_lines_count_worker_steps(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with LiveView(clock=lambda: now[0]) as view:
        for event in BEGUN:
            view(event)
        now[0] = 20.0
        view(worker_note("step", worker=1, number=1, text="x", next=""))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("0 tokens; Ada 0 steps, Ben 1 step")


def test_end_of_a_transcript_is_not_streamed_as_the_answer() -> None:
    stream = TextStream(lambda: None, lambda: None)
    after = CALL.model_copy(update={"number": 9, "operation": "generate", "samples": 1})
    for event in (*BEGUN, after, worker_delta(0, "4}").model_copy(update={"parent": 9})):
        stream(event)
    assert stream.printed == ""
