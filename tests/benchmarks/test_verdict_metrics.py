"""Figures by hand, their intervals against slow ones, and differences of methods on the same claims."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.evals.scoring import label_report
from reason.evals.statistics.calibration import aurc, ece
from reason.evals.statistics.intervals import resample_groups
from reason.verify.types import support
from verdict_metrics import NAMES, difference, top_label_hits, verdict_metrics

LABELS = ("supports", "refutes", "neutral")
probabilities = st.tuples(*[st.integers(1, 9)] * 3).map(support)
claims = st.lists(st.tuples(st.sampled_from(LABELS), probabilities, st.sampled_from("abcdef")), min_size=2, max_size=25)


@given(claims)
def test_replicates_are_metrics_of_the_resamples(rows):
    golds, probs, groups = ([r[i] for r in rows] for i in range(3))
    labels = [p.label for p in probs]
    result = verdict_metrics(golds, labels, probs, groups, resamples=4, seed=3)
    names = list(dict.fromkeys(groups))
    whole = label_report(list(zip(golds, labels, strict=True)))
    assert result.values["macro_f1"] == pytest.approx(whole.macro_f1)
    for r, sampled in enumerate(row for some in resample_groups(len(names), 4, 3) for row in some):
        at = [i for g in sampled for i in range(len(rows)) if groups[i] == names[g]]
        some_golds, some_labels, some = [golds[i] for i in at], [labels[i] for i in at], [probs[i] for i in at]
        confidences, correct = top_label_hits(some, some_golds)
        slow = label_report(list(zip(some_golds, some_labels, strict=True)))
        expected = {
            "accuracy": slow.accuracy,
            "macro_f1": slow.macro_f1,
            **by_hand(some_labels, some_golds),
            "ece": ece(confidences, correct),
            "brier": np.mean([brier(p, gold) for p, gold in zip(some, some_golds, strict=True)]),
            "nll": nll(some, some_golds),
            "aurc": aurc(confidences, correct),
        }
        assert {n: result.replicates[n][r] for n in NAMES} == pytest.approx(expected, nan_ok=True)


def brier(probs, gold):
    return sum((p - (label == gold)) ** 2 for p, label in zip(probs, LABELS, strict=True))


def nll(probs, golds):
    return -np.mean([np.log(getattr(p, gold)) for p, gold in zip(probs, golds, strict=True)])


def by_hand(labels, golds):
    """False verdicts "supports", as shares of both kinds, and decisive labels."""
    pairs = list(zip(labels, golds, strict=True))
    false = sum(text == "supports" != gold for text, gold in pairs)
    others, supported = sum(gold != "supports" for gold in golds), labels.count("supports")
    return {
        "false_supported": false / others if others else np.nan,
        "wrong_supported": false / supported if supported else np.nan,
        "answered": sum(text != "neutral" for text in labels) / len(labels),
    }


def test_false_supported_is_a_share_of_the_claims_and_of_the_verdicts():
    golds = ["supports", "supports", "refutes", "neutral", "disputed", "neutral"]
    labels = ["supports", "neutral", "supports", "supports", "refutes", "neutral"]
    values = verdict_metrics(golds, labels, None, list("abcdef")).values
    assert values["false_supported"] == pytest.approx(2 / 4)
    assert values["wrong_supported"] == pytest.approx(2 / 3)
    assert values["answered"] == pytest.approx(4 / 6)
    assert "wrong_supported" not in verdict_metrics(golds, ["neutral"] * 6, None, list("abcdef")).values
    assert "false_supported" not in verdict_metrics(["supports"], ["supports"], None, ["a"]).values


def test_differences_of_methods():
    golds = ["supports"] * 10
    a = verdict_metrics(golds, ["supports"] * 8 + ["neutral"] * 2, None, [str(i) for i in range(10)])
    b = verdict_metrics(golds, ["neutral"] * 5 + ["supports"] * 5, None, [str(i) for i in range(10)])
    same = difference(a, a)
    assert (same.wins, same.losses, same.p) == (0, 0, 1.0)
    assert all(tuple(e) == (0, 0, 0) for e in same.metrics.values())
    d = difference(a, b)
    assert (d.wins, d.losses) == (5, 2)
    assert d.p == pytest.approx(2 * (1 + 7 + 21) / 2**7)
    assert d.metrics["accuracy"].value == pytest.approx(0.3)
    assert difference(b, a).metrics["accuracy"].value == pytest.approx(-0.3)
