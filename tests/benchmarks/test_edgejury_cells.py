"""What the cells of the table of juries say, on transcripts made by hand."""

from __future__ import annotations

import re

import edgejury_table as edgejury_missing
import numpy as np
import pytest
from edgejury_table import (
    JuryTranscript,
    TranscribedRun,
    answer_position,
    borda_by_position,
    correlation,
    debiased,
    errors_table,
    excess,
    exits_table,
    juror_methods,
    juror_positions,
    juror_run,
    less_cells,
    marks_table,
    no_answer,
    paired,
    positions_table,
    read_transcripts,
    right_letter,
    stages_table,
    transcript_of,
)
from reason.core.events import JuryStageEnded, OpinionAdded, OpinionsMerged, ReviewAdded, SolutionFinished, StageStarted
from reason.core.messages import Failure
from reason.core.types import Solution
from reason.evals.results import RowLedger
from reason.reasoning.strategy import create_strategy
from reason.verify.edgejury.types import Marks, Opinion, Review, StageCost, Synthesis
from support.calibration_maps import make_row, make_run

MODELS = {"main": "m/c", "juror-1": "m/a", "juror-2": "m/b", "juror-3": "m/c"}


def opinion(juror, choice, tokens=10):
    model = f"m/{'abc'[juror]}"
    return Opinion(
        juror=juror, model=model, role="direct", text=f"It is {choice}.", choice=choice, ok=True, tokens=tokens
    )


def review(reviewer, *marks, order=None):
    """A review with the same mark thrice for each candidate, who were shown in this order."""
    scores = [Marks(candidate=c, accuracy=m, insight=m, clarity=m) for c, m in marks]
    return Review(reviewer=reviewer, scores=tuple(scores), order=order or tuple(c for c, _ in marks), ok=True)


def transcript(*choices, reviews=(), labels=(), stages=(), **notes):
    reported = {"path": "full", "source": "chair", "overruled": False, **notes}
    opinions = tuple(opinion(i, choice) for i, choice in enumerate(choices))
    return JuryTranscript(opinions, tuple(reviews), None, tuple(labels), tuple(stages), reported)


def jury_run(rows, models=MODELS, **given):
    return make_run(rows, strategy="edgejury", parameters=create_strategy("edgejury", given)[1], models=dict(models))


def row(name, right="A", said=None, options=4, **changed):
    correct = said is not None and said == right
    gold = {"type": "choice", "correct": ["ABCD".index(right)], "rule": "one"}
    more = {"gold": gold, "prediction": said, "parsed": said is not None, "choices": tuple("wxyz")[:options]}
    return make_row(name, None, correct, **{**more, **changed})


# -- comparisons


def test_methods_are_compared_on_the_rows_of_both():
    mine = [row(f"q{i}", said="A" if i < 3 else "B") for i in range(5)]
    others = [row(f"q{i}", said="A" if i == 3 else "B") for i in range(1, 9)]
    result = paired(mine, others)
    assert (result.items, result.wins, result.losses) == (4, 2, 1)
    assert less_cells([jury_run(mine)], jury_run(others))[0].startswith("+25.0 [")
    assert less_cells([jury_run(mine)], jury_run(others))[0].endswith("p = 1.000")
    assert less_cells([jury_run(mine)], jury_run([row("elsewhere")])) == ["no row in common"]
    assert less_cells([jury_run(mine)], None) == [""]
    # of two seeds, those that both have: a question that was asked under another seed is another row
    left = [row("q0", said="A", seed=0), row("q0", said="B", seed=1), row("q1", said="A", seed=0)]
    right = [row("q0", said="B", seed=0), row("q1", said="A", seed=1)]
    result = paired(left, right)
    assert (result.items, result.difference) == (1, 1.0)


def test_juror_is_a_method():
    rows = [row("q0", "B", said="A"), row("q1", "C", said="C"), row("q2", said="A")]
    transcribed = TranscribedRun(jury_run(rows), (transcript("B", None, "A"), transcript("C", "C", "A"), None))
    first, second = juror_run(transcribed, 0), juror_run(transcribed, 1)
    assert [(r.id, r.value, r.correct, r.prediction) for r in first.rows] == [
        ("q0", 1, True, "B"),
        ("q1", 1, True, "C"),
    ]
    assert [(r.value, r.parsed, r.ledger.completion_tokens) for r in second.rows] == [(0, False, 10), (1, True, 10)]
    assert no_answer(second) == "50.0"
    assert [name for name, _ in juror_methods(transcribed)] == [
        f"juror {i}: {m}, direct" for i, m in ((1, "a"), (2, "b"), (3, "c"))
    ]
    assert not any(r.timing.uninterrupted for r in first.rows)
    assert (right_letter(rows[1]), answer_position(rows[1]), answer_position(row("q"))) == ("C", 2, None)
    with pytest.raises(SystemExit):
        right_letter(make_row("open", None, None))


# -- how it went


def test_early_exit_saves_the_cost_of_the_full_path():
    def run(said, ledgers, **given):
        rows = [
            row(f"q{i}", said=s, ledger=RowLedger(model_calls=c, completion_tokens=t))
            for i, (s, (c, t)) in enumerate(zip(said, ledgers, strict=True))
        ]
        paths = ("early_exit" if c == 3 else "full" for c, _ in ledgers)
        return TranscribedRun(jury_run(rows, **given), tuple(transcript("A", "A", "A", path=path) for path in paths))

    leaving = run("AB", [(3, 30), (7, 90)])
    staying = run("BB", [(7, 80), (7, 90)], early_exit=False)
    cells = [cell.strip() for cell in exits_table([("j", leaving, staying)]).splitlines()[2].split("|")[1:-1]]
    assert cells[:5] == ["j", "2", "50.0", "100.0", "0.0"]
    assert (cells[5], cells[6]) == ("2.0 [0.0, 4.0]", "25.0 [0.0, 50.0]")
    assert re.fullmatch(r"\+50.0 \[-.*\], p = 1.000", cells[7])


def test_stages_are_means_over_the_questions_that_reached_them():
    def cost(stage, calls, read, written, ms):
        return StageCost(stage=stage, calls=calls, prompt_tokens=read, completion_tokens=written, latency_ms=ms)

    first = transcript("A", "B", "C", stages=[cost("answer", 3, 300, 60, 2000), cost("review", 4, 900, 90, 3000)])
    second = transcript("A", "A", "A", stages=[cost("answer", 3, 500, 40, 4000), cost("agreement", 0, 0, 0, 1)])
    transcribed = TranscribedRun(jury_run([row("q0"), row("q1")]), (first, second))
    _, _, *body = stages_table([("j", transcribed)], timed=True).splitlines()
    assert body == [
        "| j | answer | 2 | 3.00 | 400 | 50 | 3.0 / 3.9 |",
        "| j | review | 1 | 4.00 | 900 | 90 | 3.0 / 3.0 |",
    ]
    assert "s p50" not in stages_table([("j", transcribed)], timed=False)


# -- biases


def test_positions_are_compared_with_chance():
    positions = {("q0", 0): (0, 2), ("q1", 0): (0, 4), ("q2", 0): (3, 4)}
    assert excess(positions) == pytest.approx([0.5, 0.75, -0.25])
    printed = positions_table([("one", positions), ("nobody", {})], [("jury", {("q0", 0): (1, 2)})])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()[2:]]
    assert [r[0] for r in rows] == ["one", "jury"]
    assert rows[0][1:5] == ["it saw them", "3", "66.7", "33.3"]
    assert rows[0][5].startswith("+33.3 [")
    assert rows[0][8:] == ["2 / 1.0", "0 / 1.0", "0 / 0.5", "1 / 0.5", ""]
    assert rows[1][1:4] == ["the question has them", "1", "0.0"]
    # with shuffled orders the first was answered once in two rows of both, without twice
    other = {("q0", 0): (0, 2), ("q1", 0): (0, 4), ("elsewhere", 0): (0, 4)}
    assert debiased({("q0", 0): (0, 2), ("q1", 0): (2, 4)}, other) == "-50.0 [-100.0, +0.0] (2 rows)"
    assert debiased({}, other) == "no row in common"


def test_position_of_a_juror_is_the_one_it_saw():
    jurors = [{"position": 2}, {"position": None}]
    transcribed = TranscribedRun(jury_run([row("q0"), row("q1")]), (transcript("A", None, jurors=jurors), None))
    assert juror_positions(transcribed, 0) == {("q0", 0): (2, 4)}
    assert juror_positions(transcribed, 1) == juror_positions(transcribed, 2) == {}


def test_marks_are_reported_by_position():
    transcripts = (
        transcript(
            "A", "B", "C", reviews=[review(0, (1, 9), (2, 3), order=(2, 1)), review(1, (0, 5), (2, 5), order=(0, 2))]
        ),
        transcript("A", "B", "C", reviews=[review(0, (1, 8), (2, 9)), review(1, (0, 7), order=(2, 0))]),
        transcript("A", "B", reviews=[review(0, (1, 8))]),  # one text has no position
    )
    transcribed = TranscribedRun(jury_run([row(f"q{i}") for i in range(3)]), transcripts)
    keys, values, missing = borda_by_position(transcribed)["all", 2]
    assert [key[0] for key in keys] == ["q0", "q0", "q1"]
    assert values == pytest.approx(np.array([[0, 1], [0.5, 0.5], [0, 1]]))
    assert missing == 1
    assert borda_by_position(transcribed)["a", 2][1] == pytest.approx(np.array([[0, 1], [0, 1]]))
    lines = marks_table([("j", transcribed), ("k", transcribed)]).splitlines()[2:]
    assert [line.split(" | ")[:5] for line in lines] == [
        ["| j", "a", "2", "2", "0"],
        ["| j", "all", "2", "3", "1"],
        ["| j", "b", "2", "1", "1"],
        ["| k", "all", "2", "3", "1"],
    ]
    assert "0.17 [0.00, 0.25] · 0.83 [0.75, 1.00]" in lines[1]


def test_errors_that_go_together():
    a = np.array([1, 1, 0, 0, 1, 0], dtype=float)
    names = [f"q{i}" for i in range(6)]
    assert correlation(a, a, names)[0] == pytest.approx(1)
    assert correlation(a, 1 - a, names)[0] == pytest.approx(-1)
    b = np.array([1, 0, 0, 0, 1, 1], dtype=float)
    assert correlation(a, b, names)[0] == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert correlation(a, np.ones(6), names) is None
    transcripts = (transcript("B", "B"), transcript("B", "C"), transcript("A", "A"), transcript(None, None))
    transcribed = TranscribedRun(jury_run([row(f"q{i}") for i in range(4)]), transcripts)
    (line,) = errors_table([("j", transcribed)]).splitlines()[2:]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[:7] == ["j", "1 (a), 2 (b)", "4", "75.0, 75.0", "75.0", "56.2", "25.0"]  # no letter is no same letter
    assert cells[7].startswith("+1.00")


# -- what the store tells


async def test_resumed_run_is_read_from_the_resumption():
    def given(juror, choice):
        return OpinionAdded(juror=juror, report=opinion(juror, choice).model_dump(mode="json"))

    cost = StageCost(stage="answer", calls=2).model_dump(mode="json")
    merged = Synthesis(answer="A", choice="A", source="chair").model_dump(mode="json")
    began = StageStarted(stage="jury: answer")
    events = [
        *(began, given(0, "B"), given(1, "B"), given(2, "B")),
        JuryStageEnded(stage="answer", num_requests=3, num_responses=3, report=cost),
        *(began, given(0, "A"), given(1, "C")),
        JuryStageEnded(stage="answer", num_requests=2, num_responses=2, report=cost),
        ReviewAdded(reviewer=1, report=review(1, (0, 7)).model_dump(mode="json")),
        OpinionsMerged(report=merged),
    ]
    assert transcript_of(events) is None  # it came to no answer
    result = transcript_of([*events, SolutionFinished(solution=Solution(chosen=None, notes={"path": "full"}))])
    assert [(o.juror, o.choice) for o in result.opinions] == [(0, "A"), (1, "C")]
    assert (len(result.stages), len(result.reviews), result.synthesis.choice, result.path) == (1, 1, "A", "full")
    assert await read_transcripts([jury_run([row("q")])]) == [
        TranscribedRun(jury_run([row("q")]), (None,))
    ]  # the store is gone


def test_failed_rows_are_reported():
    gone = row("q1", error=Failure(code="backend_error", message="gone"), parsed=False)
    (line, unknown) = edgejury_missing.missing_lines([jury_run([row("q0"), gone])])
    assert line == "edgejury (nowhere): 1 rows ended with an error and count as wrong."
    assert "no --plans" in unknown
