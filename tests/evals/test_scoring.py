"""Scorers against worked values, the definitions and scikit-learn."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.types import AnswerCandidate, CheckedClaim, Document, Evidence, Question, Verification
from reason.evals.datasets.items import (
    ChoiceGold,
    EvidenceSets,
    Item,
    LabelGold,
    MathGold,
    TextGold,
)
from reason.evals.scoring import Scorer, attribution, label_report, score
from reason.reasoning.answers.equivalence import Equivalence
from reason.reasoning.answers.extraction import option_letter
from support.eval_tasks import answered


def item(gold, choices=(), documents=(), kind="auto"):
    return Item(id="i", question=Question(text="Q?", choices=choices, documents=documents, kind=kind), gold=gold)


def scored(choices, logprobs):
    """The candidates that the strategy `logprob` gives."""
    return [
        AnswerCandidate(text=c, answer=option_letter(i), score=p, logprob=p, tokens=0)
        for i, (c, p) in enumerate(zip(choices, logprobs, strict=True))
    ]


# -- mathematics


async def test_mathematics_is_compared_as_such():
    async with Scorer(Equivalence(timeout_s=60, algebra_s=3600)) as scorer:  # however slow the machine is
        for given_, gold, hit in [
            ("1/2", MathGold(answer="\\frac12"), True),
            ("0.5", MathGold(answer="\\frac12"), True),
            ("$1,100", MathGold(answer="1100", kind="number"), True),
            ("1101", MathGold(answer="1100", kind="number"), False),
            ("073", MathGold(answer="73"), True),
            ("(x+1)^2", MathGold(answer="x^2+2x+1"), True),
            ("7", MathGold(answer="x", equivalents=("y", "7")), True),
        ]:
            result = await scorer.score(item(gold), answered(given_, confidence=0.25))
            assert (result.correct, result.value) == (hit, float(hit)), given_
            assert (result.parsed, result.prediction, result.label) == (True, given_, gold.answer)
            assert result.confidence == 0.25
        nothing = await scorer.score(item(MathGold(answer="1")), answered(None))
        assert (nothing.value, nothing.parsed, nothing.prediction) == (0.0, False, None)
        bomb = await scorer.score(item(MathGold(answer="1")), answered("9^{9^{9^{9}}}"))
        assert (bomb.value, bomb.parsed, bomb.notes["undecided"]) == (0.0, True, "too_heavy")


# -- choices

THREE = ("north", "south", "up")


@pytest.mark.parametrize(
    ("answer", "parsed", "prediction", "value"),
    [
        ("B", True, "B", 1.0),
        ("b", True, "B", 1.0),
        ("(B) south", True, "B", 1.0),
        ("south", True, "B", 1.0),
        ("A", True, "A", 0.0),
        ("D", False, None, 0.0),
        ("B and C", False, None, 0.0),
        ("nothing of it", False, None, 0.0),
        (None, False, None, 0.0),
    ],
)
async def test_a_choice_by_its_letter(answer, parsed, prediction, value):
    result = await score(item(ChoiceGold(correct=(1,)), THREE), answered(answer))
    assert (result.parsed, result.prediction, result.value, result.label) == (parsed, prediction, value, "B")
    assert result.metrics == {}


async def test_mc1_by_log_probability():
    logprobs = [math.log(p) for p in (0.1, 0.3, 0.2)]
    gold = ChoiceGold(correct=(1,))
    result = await score(item(gold, THREE), answered("B", candidates=scored(THREE, logprobs)))
    assert result.value == 1.0
    assert result.metrics == {"right_share": pytest.approx(0.5)}


async def test_mc2_is_the_share_of_the_right_choices_and_mc1_comes_with_it():
    choices = ("w", "x", "y", "z")
    logprobs = [math.log(p) for p in (0.04, 0.01, 0.02, 0.03)]
    gold = ChoiceGold(correct=(1, 3), rule="mass", mc1=(0, 1, 3), mc1_correct=3)
    result = await score(item(gold, choices), answered("A", candidates=scored(choices, logprobs)))
    assert result.value == result.metrics["mc2"] == pytest.approx(0.4)  # (0.01 + 0.03) / 0.10
    assert result.correct is None
    assert (result.metrics["mc1"], result.metrics["any_right"]) == (0.0, 0.0)  # 0.04 is the likeliest of MC1's
    assert result.label == "B, D"
    without = gold.model_copy(update={"mc1": (1, 3)})
    result = await score(item(without, choices), answered("A", candidates=scored(choices, logprobs)))
    assert result.metrics["mc1"] == 1.0


async def test_mc2_survives_probabilities_that_a_float_does_not_hold():
    choices = ("w", "x")
    gold = ChoiceGold(correct=(0,), rule="mass")
    result = await score(
        item(gold, choices), answered("A", candidates=scored(choices, [-2000.0, -2000.0 + math.log(3)]))
    )
    assert result.value == pytest.approx(0.25)


async def test_mc2_by_letter_counts_any_right_choice():
    gold = ChoiceGold(correct=(0, 2), rule="mass", mc1=(0, 1), mc1_correct=0)
    for letter, value in (("A", 1.0), ("B", 0.0), ("C", 1.0)):
        result = await score(item(gold, THREE), answered(letter))
        assert (result.value, result.correct, result.metrics) == (value, value == 1.0, {"any_right": value})


@pytest.mark.parametrize("change", [{"tokens": 3}, {"text": "North"}, {"logprob": None}])
async def test_samples_are_not_taken_for_choices(change):
    candidates = scored(THREE, [-1.0, -2.0, -3.0])
    candidates[0] = candidates[0].model_copy(update=change)
    result = await score(item(ChoiceGold(correct=(0,)), THREE), answered("A", candidates=candidates))
    assert result.metrics == {}


@given(st.lists(st.floats(-300, 0), min_size=2, max_size=8), st.data())
async def test_mc2_is_in_0_1_and_ignores_the_order(logprobs, data):
    from reason.evals.scoring import score_choice

    choices = tuple(f"c{i}" for i in range(len(logprobs)))
    right = data.draw(st.sets(st.sampled_from(range(len(choices))), min_size=1))
    order = data.draw(st.permutations(range(len(choices))))

    def mc2(positions):
        shown = tuple(choices[i] for i in positions)
        correct = tuple(k for k, i in enumerate(positions) if i in right)
        question = Question(text="Q", choices=shown)
        answer = answered("A", candidates=scored(shown, [logprobs[i] for i in positions]))
        return score_choice(question, ChoiceGold(correct=correct, rule="mass"), answer).value

    total = math.fsum(map(math.exp, logprobs))
    assert 0 <= mc2(range(len(choices))) <= 1
    assert mc2(order) == pytest.approx(math.fsum(math.exp(logprobs[i]) for i in right) / total, rel=1e-9)


# -- labels and evidence

LABELS = ("S", "R", "N")


async def test_a_label_by_its_choice_and_written_out():
    gold = LabelGold(
        label="NOT ENOUGH INFO", labels=("SUPPORTS", "NOT ENOUGH INFO"), shown=("NOT ENOUGH INFO", "SUPPORTS")
    )
    result = await score(item(gold, ("lacking", "there")), answered("A"))
    assert (result.value, result.label, result.prediction) == (1.0, "NOT ENOUGH INFO", "NOT ENOUGH INFO")
    result = await score(item(gold, ("lacking", "there")), answered("B"))
    assert (result.value, result.prediction) == (0.0, "SUPPORTS")
    free = gold.model_copy(update={"shown": ()})
    assert (await score(item(free), answered("not_enough_info."))).value == 1.0
    assert (await score(item(free), answered("perhaps"))).parsed is False
    with pytest.raises(ValueError, match="not among the labels"):
        LabelGold(label="X", labels=LABELS)


def resting_on(*names):
    evidence = tuple(Evidence(source=n, text="t") for n in names)
    return Verification(verdict="supported", claims=(CheckedClaim(text="c", verdict="supported", evidence=evidence),))


async def test_evidence_of_a_verification_is_attributed():
    gold = LabelGold(label="S", labels=LABELS, evidence=EvidenceSets(names=("2", "3", "4"), sets=(("2",), ("3", "4"))))
    result = await score(item(gold), answered("S", verification=resting_on("1", "2")))
    assert result.metrics == {
        "evidence_precision": 1 / 2,
        "evidence_recall": 1 / 3,
        "evidence_f1": pytest.approx(2 / 5),
        "evidence_enough": 1.0,
        "label_and_evidence": 1.0,
    }
    wrong = await score(item(gold), answered("R", verification=resting_on("1", "2")))
    assert wrong.metrics["label_and_evidence"] == 0.0
    assert (await score(item(gold), answered("S"))).metrics == {}  # an answer that names none is not measured


async def test_evidence_named_in_the_text_is_found():
    documents = tuple(Document(name=n, text="t") for n in ("fev-1", "fev-12", "fev-3"))
    gold = LabelGold(label="S", labels=("S", "R"), evidence=EvidenceSets(names=("fev-12", "fev-3")))
    result = await score(item(gold, documents=documents), answered("S", text="By fev-12 it is so."))
    assert result.metrics["evidence_f1"] == pytest.approx(2 / 3)
    assert result.metrics["label_and_evidence"] == 0.0
    result = await score(item(gold, documents=documents), answered("S", text="By fev-3 and fev-12."))
    assert result.metrics["label_and_evidence"] == 1.0
    assert (await score(item(gold, documents=documents), answered("S"))).metrics == {}


@pytest.mark.parametrize(("named", "enough"), [({"0"}, 1), ({"1", "2"}, 1), ({"1"}, 0), ({"0", "1"}, 1), (set(), 0)])
def test_a_complete_set_is_enough_evidence(named, enough):
    right = EvidenceSets(names=("0", "1", "2"), sets=(("0",), ("1", "2")))
    assert attribution(named, right)["evidence_enough"] == enough


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=40))
def test_reports_of_labels_are_scikit_learns(pairs):
    metrics = pytest.importorskip("sklearn.metrics")
    right, given_ = zip(*pairs, strict=True)
    used = [x for x in LABELS if x in right or x in given_]
    report = label_report(pairs, LABELS)
    options = {"labels": used, "zero_division": 0}
    assert report.macro_f1 == pytest.approx(metrics.f1_score(right, given_, average="macro", **options), abs=1e-12)
    assert report.weighted_f1 == pytest.approx(
        metrics.f1_score(right, given_, average="weighted", **options), abs=1e-12
    )
    assert report.accuracy == pytest.approx(metrics.accuracy_score(right, given_))


@pytest.mark.parametrize(
    ("given_", "em", "f1"),
    [
        ("Johann Goethe", 1, 1),
        ("the Johann, Goethe!", 1, 1),
        ("Goethe", 0, 2 / 3),
        ("Schiller", 0, 0),
        ("", 0, 0),
    ],
)
async def test_exact_match_and_f1(given_, em, f1):
    result = await score(item(TextGold(answers=("Wolfgang", "Johann Goethe"))), answered(given_ or None))
    assert (result.value, result.metrics["f1"], result.parsed) == (em, pytest.approx(f1), bool(given_))


# -- texts
