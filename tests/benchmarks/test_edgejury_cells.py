"""What the cells of the table of juries say, on transcripts made by hand."""

import numpy as np
import pytest
from edgejury_table import (
    JuryTranscript,
    TranscribedRun,
    answer_position,
    correlation,
    juror_methods,
    juror_positions,
    juror_run,
    less_cells,
    no_answer,
    paired,
    position_bias,
    read_transcripts,
    right_letter,
    transcript_of,
)
from reason.core.events import JuryStageEnded, OpinionAdded, OpinionsMerged, ReviewAdded, SolutionFinished, StageStarted
from reason.core.types import Solution
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


# -- biases


def test_position_of_a_juror_is_the_one_it_saw():
    jurors = [{"position": 2}, {"position": None}]
    transcribed = TranscribedRun(jury_run([row("q0"), row("q1")]), (transcript("A", None, jurors=jurors), None))
    assert juror_positions(transcribed, 0) == {("q0", 0): (2, 4)}
    assert juror_positions(transcribed, 1) == juror_positions(transcribed, 2) == {}


def test_errors_that_go_together():
    a = np.array([1, 1, 0, 0, 1, 0], dtype=float)
    names = [f"q{i}" for i in range(6)]
    assert correlation(a, a, names)[0] == pytest.approx(1)
    assert correlation(a, 1 - a, names)[0] == pytest.approx(-1)
    b = np.array([1, 0, 0, 0, 1, 1], dtype=float)
    assert correlation(a, b, names)[0] == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert correlation(a, np.ones(6), names) is None


def test_position_bias_by_hand():
    counts, expected, p, distance = position_bias([(0, 4)] * 60)
    assert (counts.tolist(), expected.tolist(), distance) == ([60, 0, 0, 0], [15.0] * 4, 0.75)
    assert p < 1e-9
    assert position_bias([(i % 4, 4) for i in range(60)])[2:] == (1.0, 0.0)
    counts, expected, _, distance = position_bias([(1, 2), (0, 4), (3, 4)])
    assert (counts.tolist(), expected.tolist()) == ([1, 1, 0, 1], [1.0, 1.0, 0.5, 0.5])
    assert distance == pytest.approx(1 / 6)


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
