"""Voting over paths: golden vectors, the exact properties of each method, guards, options, bad input."""

from __future__ import annotations

import dataclasses
import math
import random
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reason.core.errors import DataError, UnknownName, UserError
from reason.reasoning.voting import path_votes as pruning
from reason.reasoning.voting.path_votes import (
    METHODS,
    ROUNDING,
    Fit,
    Path,
    Vote,
    prune,
    vote,
)

CLOSE = {"rel": 0, "abs": 1e-6}
A = [
    Path(f"path {i}", answer, s)
    for i, (answer, s) in enumerate(
        zip("77333999", [-0.05, -0.06, -0.07, -0.20, -0.22, -0.50, -0.55, -0.60], strict=True)
    )
]


each_parity = pytest.mark.parametrize("parity", ["none", "reference"])


def ties(result):
    """Positions of the classes that share the first rank."""
    return [i for i, voted in enumerate(result.classes) if voted.credit]


def paths_of(text: str) -> list[Path]:
    """Paths written as text=answer:log-probability; no answer is none."""
    rows = re.findall(r"(\S+)=(\S*):(\S+)", text)
    return [Path(text, answer or None, float(logprob)) for text, answer, logprob in rows]


def classes_of(paths: list[Path]) -> list[list[int]]:
    """Equal answers are equal texts here."""
    result: dict[str, list[int]] = {}
    for i, path in enumerate(paths):
        if path.answer is not None:
            result.setdefault(path.answer, []).append(i)
    return list(result.values())


def count(paths: list[Path], method: str = "rpc", parity: str = "none") -> Vote:
    return vote(paths, classes_of(paths), method, parity)


def confidences(result: Vote) -> dict[str | None, float]:
    return {voted.answer: voted.confidence for voted in result.classes}


logprobs = st.one_of(st.floats(-3, 0), st.sampled_from([-0.5, -0.25, -0.125, 0.0]))
pools = st.lists(
    st.builds(Path, st.sampled_from("abcdefghijklmnop"), st.sampled_from([*"123", None]), logprobs),
    min_size=1,
    max_size=24,
).map(lambda paths: [Path(f"{p.text}{p.answer}", p.answer, p.mean_logprob) for p in paths])  # a text states one answer
answered = pools.filter(lambda paths: any(p.answer is not None for p in paths))


@each_parity
def test_golden_vector_a(parity):
    rpc = count(A, "rpc", parity)
    assert rpc.pruned == (5, 6, 7)
    assert confidences(rpc) == pytest.approx({"7": 0.425714, "3": 0.574286, "9": 0.0}, **CLOSE)
    assert rpc.fit is not None
    assert rpc.fit.parameters == pytest.approx((0.62551, 18.1159, 0.918283, 27.8942, 0.588753), abs=1e-3)
    assert rpc.fit.nll == pytest.approx(-8.582082, abs=1e-5)
    assert (rpc.answer, rpc.degraded, ties(rpc)) == ("3", (), [0])
    pc = count(A, "pc", parity)
    assert confidences(pc) == pytest.approx({"7": 0.306363, "3": 0.413282, "9": 0.280355}, **CLOSE)
    assert (pc.answer, pc.pruned, pc.fit) == ("3", (), None)
    sc = count(A, "sc", parity)
    assert confidences(sc) == {"7": 0.25, "3": 0.375, "9": 0.375}
    assert [(c.answer, c.credit) for c in sc.classes] == [("3", 0.5), ("9", 0.5), ("7", 0.0)]
    assert ties(sc) == [0, 1]
    ppl = count(A, "ppl", parity)
    assert (ppl.answer, ppl.confidence) == ("7", pytest.approx(math.exp(-0.05)))


def test_golden_vector_b():
    same, other = paths_of("a=1:-0.1 a=1:-0.1 b=2:-0.12"), paths_of("a=1:-0.1 a=1:-0.1000001 b=2:-0.12")
    for paths, parity, one in (
        (same, "none", 0.5049998),
        (same, "reference", 0.5049998),
        (other, "reference", 0.6710962),
        (other, "none", 0.5049998),
    ):
        assert confidences(count(paths, "pc", parity)) == pytest.approx({"1": one, "2": 1 - one}, **CLOSE)


@given(answered, st.sampled_from(["rpc", "pc", "sc"]))
@example(paths_of("a1=1:-800 b1=2:-900"), "pc")
@example(paths_of("a1=1:-inf b1=2:-inf"), "pc")
def test_confidences_are_shares_and_the_most_probable_path_votes(paths, method):
    """Property 1."""
    result = count(paths, method)
    assert all(c.confidence >= 0 for c in result.classes)
    assert math.fsum(c.confidence for c in result.classes) == pytest.approx(1)
    voters = [i for c in result.classes for i in c.members]
    likeliest = max(paths[i].mean_logprob for i in voters)
    assert not any(paths[i].mean_logprob == likeliest for i in result.pruned)
    assert math.fsum(c.credit for c in result.classes) == pytest.approx(1)
    assert list(result.classes) == sorted(result.classes, key=lambda c: -round(c.confidence, 9))


@given(st.lists(st.sampled_from("1234"), min_size=1, max_size=30), st.floats(-5, 0))
def test_equal_probabilities_of_distinct_texts_are_plain_votes(answers, s):
    """Property 2."""
    paths = [Path(f"text {i}", answer, s) for i, answer in enumerate(answers)]
    sc = count(paths, "sc")
    for method in ("rpc", "pc"):
        result = count(paths, method)
        assert [c.answer for c in result.classes] == [c.answer for c in sc.classes]
        assert [c.confidence for c in result.classes] == pytest.approx([c.confidence for c in sc.classes])
        assert ties(result) == ties(sc)


@given(answered, st.randoms(use_true_random=False), st.sampled_from(METHODS))
def test_the_order_of_paths_changes_nothing(paths, rng, method):
    """Property 3, exactly: sums are exactly rounded, and the fit sees sorted probabilities."""
    order = list(range(len(paths)))
    rng.shuffle(order)
    before, after = count(paths, method), count([paths[i] for i in order], method)
    assert {c.answer: (c.confidence, c.credit) for c in before.classes} == {
        c.answer: (c.confidence, c.credit) for c in after.classes
    }
    assert {c.answer: set(c.members) for c in before.classes} == {
        c.answer: {order[i] for i in c.members} for c in after.classes
    }
    assert set(before.pruned) == {order[i] for i in after.pruned}
    assert (before.fit, before.degraded, before.unparsed) == (after.fit, after.degraded, after.unparsed)


@given(answered, st.data(), st.sampled_from(["none", "reference"]))
def test_an_exact_duplicate_weighs_nothing_in_pc(paths, data, parity):
    """Property 4."""
    again = data.draw(st.sampled_from(paths))
    before, after = count(paths, "pc", parity), count([*paths, again], "pc", parity)
    assert confidences(before) == confidences(after)


@given(st.lists(st.floats(-3, 0), min_size=1, max_size=30), st.sampled_from(["none", "reference"]))
def test_only_paths_below_the_mean_are_pruned(logs, parity):
    """Property 6; the mixture's tests check that swapping components does not change posteriors."""
    p = [math.exp(s) for s in logs]
    result = prune(p, parity)
    assert all(p[i] < result.mean for i in result.pruned)
    assert all(result.posterior[i] <= 0.5 for i in result.pruned)
    assert list(result.pruned) == sorted(set(result.pruned))


@given(answered)
def test_ppl_takes_the_most_probable_path(paths):
    """Property 7."""
    result = count(paths, "ppl")
    voters = [i for c in result.classes for i in c.members]
    top = max(paths[i].mean_logprob for i in voters)
    winners = [i for i in voters if paths[i].mean_logprob == top]
    assert result.classes[0].representative in winners
    assert result.confidence == math.exp(top)
    for voted in result.classes:
        assert voted.credit == pytest.approx(len(set(winners) & set(voted.members)) / len(winners))


@given(st.floats(-20, 0), st.integers(1, 400), st.integers(1, 3), st.sampled_from(["rpc", "pc", "ppl", "sc"]))
def test_equal_probabilities_never_end_in_nothing(s, paths, answers, method):
    """Guard h.2: the mean of equal numbers can exceed all of them in floating point."""
    result = count([Path(str(i), str(i % answers), s) for i in range(paths)], method)
    assert result.pruned == ()
    assert all(c.confidence > 0 for c in result.classes)
    if method == "rpc" and paths >= 4:
        assert result.degraded == ("rpc: fewer than 3 distinct probabilities, nothing pruned",)
        assert result.fit is None


def test_the_authors_arithmetic_can_prune_everything():
    """The case of the guard is reachable: all paths pruned, 0/0."""
    for seed in range(400):
        rng = random.Random(seed)
        paths = [Path(str(i), "1", s) for s in [-rng.uniform(0.01, 2)] for i in range(rng.randint(4, 64))]
        result = vote(paths, classes_of(paths), "rpc", "reference")
        if len(result.pruned) == len(paths):
            assert math.isnan(result.confidence)
            assert count(paths).confidence == 1
            return
    pytest.fail("no pool of equal probabilities was pruned whole")


def test_two_distinct_probabilities_are_not_fitted_and_three_are():
    two = paths_of("0=1:-0.1 1=1:-0.1 2=1:-2 3=1:-2")
    three = [*two, Path("x", "1", -1.9)]
    assert count(two).degraded == ("rpc: fewer than 3 distinct probabilities, nothing pruned",)
    assert count(three).degraded == ()
    assert count(three).fit is not None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_fit_that_is_not_finite_prunes_nothing(monkeypatch, value):
    broken = dataclasses.replace(pruning.fit_mixture([0.2, 0.5, 0.9]), k2=value)
    monkeypatch.setattr(pruning, "fit_mixture", lambda *_, **__: broken)
    result = count(A)
    assert (result.pruned, result.degraded) == ((), ("rpc: the fit is not finite, nothing pruned",))
    assert confidences(result) == confidences(count(A, "pc"))


def give_fit(monkeypatch: pytest.MonkeyPatch, w: float, k1: float, lam1: float, k2: float, lam2: float) -> None:
    """Make this the fitted mixture."""
    fit = Fit(w, k1, lam1, k2, lam2, nll=0.0, start_nll=0.0, iterations=1, converged=True, swapped=False)
    monkeypatch.setattr(pruning, "fit_mixture", lambda *_, **__: fit)


@each_parity
def test_both_comparisons_are_strict(monkeypatch, parity):
    p = [0.25, 0.5, 0.75]
    give_fit(monkeypatch, 0.5, 2.0, 0.5, 2.0, 0.5)
    assert prune(p, parity).posterior == (0.5, 0.5, 0.5)
    assert prune(p, parity).pruned == ()
    give_fit(monkeypatch, 0.5, 20.0, 5.0, 2.0, 0.5)  # all are of the lower component; the second is the mean
    assert prune(p, parity).pruned == (0,)


@each_parity
def test_the_posterior_is_that_of_the_mixture(monkeypatch, parity):
    def density(x: float, k: float, lam: float) -> float:
        return k / lam * (x / lam) ** (k - 1) * math.exp(-((x / lam) ** k))

    p = [0.2, 0.4, 0.7]
    give_fit(monkeypatch, 0.8, 2.0, 0.5, 3.0, 0.3)
    high = [0.8 * density(x, 2.0, 0.5) for x in p]
    expected = [one / (one + 0.2 * density(x, 3.0, 0.3)) for one, x in zip(high, p, strict=True)]
    assert prune(p, parity).posterior == pytest.approx(expected, rel=1e-9)


@each_parity
def test_one_path_is_enough_and_none_is_refused(parity):
    assert prune([0.3], parity).mean == 0.3
    with pytest.raises(UserError, match="no probability"):
        prune([], parity)


def test_the_most_probable_path_is_kept_if_the_mean_rounds_above_it(monkeypatch):
    top = 0.6062280159478368
    p = [top] * 219 + [math.nextafter(top, 0), math.nextafter(math.nextafter(top, 0), 0)]
    give_fit(monkeypatch, 0.5, 20.0, 5.0, 2.0, 0.5)
    assert math.fsum(p) / len(p) > top
    assert prune(p).pruned == (219, 220)


def test_of_one_text_the_largest_probability_counts():
    paths = [Path("a", "1", math.log(0.2)), Path("a", "1", math.log(0.6)), Path("b", "2", math.log(0.2))]
    assert confidences(count(paths, "pc")) == pytest.approx({"1": 0.75, "2": 0.25})
    assert confidences(count(paths, "pc", "reference")) == pytest.approx({"1": 0.8, "2": 0.2})


def test_where_both_components_vanish_the_authors_arithmetic_keeps_the_path(monkeypatch):
    fit = pruning.fit_mixture([p.probability for p in A])
    monkeypatch.setattr(pruning, "fit_mixture", lambda *_, **__: fit)
    p = [*(path.probability for path in A), 0.0]
    remaining = prune(p, "reference")
    assert (remaining.pruned, math.isnan(remaining.posterior[8])) == ((5, 6, 7), True)
    assert not math.isnan(prune(p).posterior[8])


@pytest.mark.parametrize("method", ["rpc", "pc", "ppl"])
def test_a_path_of_probability_0_does_no_harm(method):
    result = count([*A, Path("zero", "0", -math.inf)], method)
    assert result.answer == count(A, method).answer
    assert confidences(result)["0"] == 0


def test_probabilities_too_small_for_a_float_weigh_by_their_ratios():
    small = paths_of("a=1:-800 b=2:-801 c=2:-802")
    result = count(small, "pc")
    weights = [1.0, math.exp(-1), math.exp(-2)]
    expected = {"1": weights[0] / sum(weights), "2": (weights[1] + weights[2]) / sum(weights)}
    assert confidences(result) == pytest.approx(expected)
    assert math.isnan(count(small, "pc", "reference").confidence)  # the authors' sums: nothing over nothing


def test_a_path_of_probability_0_is_fitted_as_such():
    result = count([*A, Path("zero", "0", -math.inf)])
    assert result.fit == prune([*(math.exp(path.mean_logprob) for path in A), 0.0]).fit


@pytest.mark.parametrize("method", ["rpc", "pc", "ppl"])
def test_without_log_probabilities_votes_are_counted_and_reported(method):
    bare = [Path(p.text, p.answer) for p in A]
    for paths in (bare, [*A[:7], bare[7]]):
        result = count(paths, method)
        assert result.degraded == (f"{method}: no logprobs, used self-consistency",)
        assert (result.method, result.method_used, result.pruned, result.fit) == (method, "sc", (), None)
        assert confidences(result) == confidences(count(A, "sc"))
    assert count(bare, "sc").degraded == ()


def test_a_path_that_does_not_vote_needs_no_log_probability():
    result = count([*A, Path("no idea", None)])
    assert (result.method_used, result.unparsed, result.degraded) == ("rpc", 1, ())
    assert confidences(result) == confidences(count(A))


def test_too_few_paths_count_as_pc():
    few = [A[0], A[3], A[5], Path("none", None, -0.1)]
    result = count(few)
    assert (result.method_used, result.pruned) == ("pc", ())
    assert result.degraded == ("rpc: 3 paths, fewer than 4, used pc",)
    assert confidences(result) == confidences(count(few, "pc"))
    assert count(few, parity="reference").method_used == "rpc"
    assert (count(few, "sc").method_used, count(few, "sc").degraded) == ("sc", ())
    assert (
        vote(few[:1], [[0]], "rpc", "reference").method_used == "rpc"
    )  # the authors' program fits a mixture to anything


def test_paths_without_an_answer_are_dropped_or_a_class():
    paths = paths_of("a=1:-0.3 b=:-0.1 c=:-0.2")
    dropped, remaining = count(paths, "pc"), count(paths, "pc", "reference")
    assert (dropped.answer, dropped.confidence, dropped.unparsed) == ("1", 1.0, 2)
    assert (remaining.answer, remaining.unparsed) == (None, 2)
    assert [c.members for c in remaining.classes] == [(1, 2), (0,)]
    nothing = count(paths[1:])
    assert (nothing.classes, nothing.answer, nothing.confidence, nothing.unparsed) == ((), None, 0.0, 2)
    assert vote([], []).answer is None


def test_who_names_a_class():
    paths = paths_of("a=1/2:-0.2 b=0.5:-0.1 c=50%:-0.1 d=2/4:-0.3")
    classes = [[0, 1, 2, 3]]
    assert vote(paths, classes, "pc").answer == "0.5"  # of equals the first
    assert vote(paths, classes, "pc", "reference").answer == "2/4"
    assert vote(paths, classes, "ppl", "reference").answer == "0.5"
    for method in ("sc", "rpc"):
        assert vote(paths, classes, method).answer == "0.5"
        assert vote(paths, classes, method, "reference").answer == "2/4"
    assert vote([Path(p.text, p.answer) for p in paths], classes, "sc").answer == "1/2"
    assert (
        vote([Path("e", "3/6"), *paths], [[0, 1, 2, 3, 4]], "sc").answer == "0.5"
    )  # a path without an answer comes last


def test_a_pruned_path_can_name_a_class_and_stays_a_member():
    result = count(A)
    (nine,) = [c for c in result.classes if c.answer == "9"]
    assert (nine.members, nine.confidence, nine.representative) == ((5, 6, 7), 0.0, 5)


def test_masses_that_differ_by_rounding_tie():
    halves = [Path("a", "1", math.log(0.1)), Path("b", "1", math.log(0.2)), Path("c", "2", math.log(0.3))]
    result = count(halves, "pc")
    assert ties(result) == [0, 1]
    assert [c.credit for c in result.classes] == [0.5, 0.5]
    assert result.answer == "1"  # of equals, the one whose first path came first
    around = paths_of("a=1:-0.5 b=2:-0.5 c=2:-0.5 d=1:-0.5")
    assert [c.answer for c in vote(around, [[1, 2], [0, 3]], "pc").classes] == ["1", "2"]


@pytest.mark.parametrize(
    "classes", [[[0, 1]], [[0, 1], [2], [1]], [[0, 1], [2, 3]], [[0, 1], [2], []], [[0, 1], [2], [4]], [[-1]]]
)
def test_classes_that_do_not_fit_are_refused(classes):
    paths = paths_of("a=1:-0.1 b=1:-0.1 c=2:-0.1 d=:-0.1")
    assert vote(paths, [[0, 1], [2]]).unparsed == 1
    with pytest.raises(UserError, match="classes hold the positions"):
        vote(paths, classes)


@pytest.mark.parametrize(("members", "told"), [(0, "none"), (2, "0, 1"), (20, ", ".join(map(str, range(20))))])
def test_errors_list_up_to_twenty_positions(members, told):
    answered = ", ".join(map(str, range(20))) + ", …"
    with pytest.raises(UserError) as e:
        vote([Path(f"t{i}", "1") for i in range(21)], [list(range(members))] if members else [])
    assert e.value.message == f"the classes hold the positions {told}, the paths with an answer are {answered}"


def test_unknown_names_are_refused():
    with pytest.raises(UnknownName, match="'rcp'.*'rpc'"):
        vote([], [], "rcp")


@pytest.mark.parametrize(
    ("value", "says"), [(math.nan, "NaN"), (0.1, "above 0"), (math.inf, "above 0"), (True, "not a number")]
)
def test_log_probabilities_that_are_none_are_refused(value, says):
    with pytest.raises(DataError, match=says):
        Path("a", "1", value)


def test_paths():
    assert Path("a", "1", -0.2).probability == pytest.approx(math.exp(-0.2))
    assert Path("a", "1", 5e-5).probability == 1.0  # a sure token, summed in 32 bits
    assert Path("a", "1", ROUNDING).probability == 1.0
    assert (Path("a", "1").probability, Path("a", "1", -math.inf).probability) == (None, 0.0)
