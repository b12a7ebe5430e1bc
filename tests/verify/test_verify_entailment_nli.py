"""Entailment by a classifier: labels by name, the order of the pair, and a real one with random weights."""

import math
from itertools import permutations

import pytest
from reason.core.errors import DataError, InvalidResponse
from reason.verify.entailment.factory import NliEntailment, premise
from reason.verify.types import Entailment, Pair
from support.scripted_entailment import ScriptedEncoder

MNLI = ("contradiction", "entailment", "neutral")
PAIR = Pair("It rained all day.", "It was wet.")


def fixed(**outputs):
    return lambda premise, hypothesis: outputs


def softmax(*logits):
    raised = [math.exp(x) for x in logits]
    return [x / sum(raised) for x in raised]


@pytest.mark.parametrize("labels", list(permutations(MNLI)))
async def test_labels_go_by_name_not_by_place(labels):
    """Invariant 10."""
    model = NliEntailment("nli", ScriptedEncoder(labels, fixed(entailment=2.0, contradiction=-1.0, neutral=0.5)))
    (verdict,) = await model.judge([PAIR])
    assert verdict == pytest.approx(softmax(2.0, -1.0, 0.5), abs=1e-12)  # fp64: fp32 would be off by 1e-8
    assert sum(verdict) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    "labels",
    [
        ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO"),
        ("supported", "refuted", "not_enough_info"),
        ("ENTAILMENT", "CONTRADICTION", "NEUTRAL"),
        ("Entails", "Contradicts", "Neutral"),
        ("support", "refute", "NEI"),
    ],
)
async def test_spellings(labels):
    values = dict(zip(labels, (3.0, 1.0, 0.0), strict=True))
    model = NliEntailment("nli", ScriptedEncoder(labels[::-1], lambda a, b: values))
    assert (await model.judge([PAIR]))[0] == pytest.approx(softmax(3, 1, 0))


@pytest.mark.parametrize(
    "labels", [("entailment", "not_entailment"), ("unsupported", "supported"), ("supported", "not-supported")]
)
async def test_two_labels_never_refute(labels):
    values = {label: 1.0 if label in ("entailment", "supported") else 0.0 for label in labels}
    (verdict,) = await NliEntailment("nli", ScriptedEncoder(labels, lambda a, b: values)).judge([PAIR])
    p = 1 / (1 + math.exp(-1))
    assert verdict == pytest.approx((p, 0.0, 1 - p), abs=1e-12)


@pytest.mark.parametrize(
    "labels",
    [
        ("LABEL_0", "LABEL_1", "LABEL_2"),
        ("LABEL_0", "LABEL_1"),
        ("score",),
        ("entailment", "contradiction"),
        ("entailment", "entails", "neutral"),
        ("entailment", "contradiction", "neutral", "other"),
        ("entailment", "contradiction", "not_entailment"),
    ],
)
def test_names_that_do_not_tell_are_refused(labels):
    with pytest.raises(DataError, match=labels[0]) as refused:
        NliEntailment("nli/local/x", ScriptedEncoder(labels, fixed()))
    assert "id2label" in refused.value.hint


async def test_evidence_is_the_premise_and_the_claim_the_hypothesis():
    """Invariant 9, on a model that knows what follows from what: swapping changes every verdict."""
    follows = {("a cat sleeps", "an animal sleeps"), ("it is 5", "it is a number"), ("red car", "car")}

    def outputs(a, b):
        return {"entailment": 5.0 if (a, b) in follows else 0.0, "contradiction": 0.0, "neutral": 2.0}

    encoder = ScriptedEncoder(MNLI, outputs)
    model = NliEntailment("nli", encoder)
    forth = await model.judge([Pair(e, c) for e, c in sorted(follows)])
    back = await model.judge([Pair(c, e) for e, c in sorted(follows)])
    assert [v.label for v in forth] == ["supports"] * 3
    assert [v.label for v in back] == ["neutral"] * 3
    assert encoder.asked[:3] == sorted(follows)


def test_the_title_goes_before_the_text():
    assert premise(Pair("She wrote it.", "c", "Ada")) == "Ada\nShe wrote it."
    assert premise(Pair("Ada wrote it.", "c", "Ada")) == "Ada wrote it."
    assert premise(Pair("She wrote it.", "c")) == "She wrote it."


async def test_limits_and_closing():
    encoder = ScriptedEncoder(MNLI, fixed(entailment=math.nan, contradiction=0.0, neutral=0.0))
    model = NliEntailment("nli", encoder)
    assert isinstance(model, Entailment)
    assert model.max_words == 277  # (512 - 96) / 1.5
    assert NliEntailment("n", ScriptedEncoder(MNLI, fixed(), max_tokens=20)).max_words == 1
    assert NliEntailment("n", ScriptedEncoder(MNLI, fixed(), max_tokens=None)).max_words is None
    assert await model.judge([]) == []
    with pytest.raises(InvalidResponse, match="nli"):
        await model.judge([PAIR])
    await model.aclose()
    assert encoder.closed == 1
