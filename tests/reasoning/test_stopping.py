"""Stopping rules as pure functions: exact values, and properties over random tallies."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from reason.reasoning.stopping import (
    Agreement,
    Beta,
    Dirichlet,
    FirstFinished,
    Lead,
    NoStop,
    Stopping,
    Tally,
    expected_gain,
    leader_probability,
)
from reason.reasoning.strategy import MAX_CHAINS
from scipy.special import betainc

STOPPING = TypeAdapter(Stopping)


def tally_of(labels, num_tokens=()):
    """A tally of samples; a text has a sample a character, and points are those without an answer."""
    if isinstance(labels, str):
        labels = [None if label == "." else int(label) for label in labels]
    return Tally(tuple(labels), num_tokens)


@st.composite
def tallies(draw):
    labels, classes = [], 0
    for _ in range(draw(st.integers(1, 24))):
        label = draw(st.none() | st.integers(0, classes))
        classes = max(classes, 0 if label is None else label + 1)
        labels.append(label)
    return tally_of(labels)


VOTING_RULES = [
    Agreement(window=3),
    Beta(),
    Beta(confidence=0.8),
    Dirichlet(),
    Dirichlet(cost=0.1, min_samples=1),
    Lead(),
    Lead(lead=2, unanimous=4),
]


def test_a_rule_is_a_name_or_an_object_with_parameters():
    assert STOPPING.validate_python("beta") == Beta()
    assert STOPPING.validate_python({"rule": "beta", "confidence": 0.99}) == Beta(confidence=0.99)
    assert STOPPING.validate_python("none") == NoStop()
    for rule in (Agreement(), Beta(), Dirichlet(), Lead(), FirstFinished(), NoStop()):
        assert STOPPING.validate_json(rule.model_dump_json()) == rule
    for wrong in ("bet", {"rule": "beta", "confidence": 0.4}, {"rule": "beta", "window": 3}, 3):
        with pytest.raises(ValidationError):
            STOPPING.validate_python(wrong)


def test_rules_have_their_defaults_and_limits():
    bounds = ("default", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
    shown = {
        definition["properties"]["rule"]["const"]: {
            name: tuple(map(field.get, bounds)) for name, field in definition["properties"].items() if name != "rule"
        }
        for definition in STOPPING.json_schema()["$defs"].values()
    }
    assert shown == {
        "none": {},
        "agreement": {"window": (5, 2, None, MAX_CHAINS, None)},
        "beta": {"confidence": (0.95, None, 0.5, None, 1)},
        "dirichlet": {"cost": (0.05, None, 0, None, 1), "min_samples": (3, 1, None, MAX_CHAINS, None)},
        "lead": {
            "lead": (3, 1, None, MAX_CHAINS, None),
            "unanimous": (2, 1, None, MAX_CHAINS, None),
            "short_weight": (1.0, None, 0, 1, None),
        },
        "first-finished": {"finished": (4, 1, None, MAX_CHAINS, None)},
    }


def test_rules_and_tallies_are_values():
    assert len({Beta(), Beta(confidence=0.9), Beta()}) == 2
    assert len({tally_of("01"), tally_of("01"), tally_of("0")}) == 2


def test_samples_count_alike_in_the_vote_unless_a_rule_says_otherwise():
    assert Beta().vote_weights(tally_of("01.", (1, 2, 3))) == (1.0, 1.0, 1.0)


# -- agreement


def stops_at(rule, tallies):
    """Those of the tallies, written as texts, at which the rule stops."""
    return [tally for tally in tallies.split() if rule.should_stop(tally_of(tally))]


def test_agreement_wants_a_run_of_equal_answers():
    assert stops_at(Agreement(window=3), "00 000 1000 0010 ... 00.0") == ["000", "1000"]


@pytest.mark.parametrize(
    ("rule", "rounds"),
    [
        (Agreement(window=3), {"": 3, "0": 2, "00": 1, "01": 2, "00.": 3, "0011": 1}),  # what its run lacks
        (Lead(), {"": 2, "0": 1, "01": 3, "010": 2, "0110": 3, "00": 1}),  # the votes that the leader lacks
    ],
    ids=["agreement", "lead"],
)
def test_a_rule_requests_the_samples_that_it_lacks(rule, rounds):
    assert {tally: rule.round_size(tally_of(tally), 10) for tally in rounds} == rounds


def test_agreement_has_a_window_of_five_and_a_minimum_of_two():
    assert Agreement().window == 5
    assert Agreement(window=2).should_stop(tally_of("011"))
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        Agreement(window=1)
    assert Agreement(window=3).round_size(tally_of("000"), 10) == 1  # never empty, even when the rule is satisfied


# -- beta


def test_beta_reference_values():
    assert leader_probability(3, 0) == 1 - 1 / 16
    assert leader_probability(4, 0) == 0.96875
    assert stops_at(Beta(), "000 0000") == ["0000"]


@given(st.integers(0, 300), st.integers(0, 300))
def test_it_is_the_incomplete_beta_function(first, second):
    assert leader_probability(first, second) == pytest.approx(1 - betainc(first + 1, second + 1, 0.5), abs=1e-9)


@given(st.integers(0, 24), st.integers(0, 24))
def test_it_is_antisymmetric_and_grows_with_the_leader(first, second):
    assert leader_probability(first, second) + leader_probability(second, first) == pytest.approx(1, abs=1e-12)
    assert leader_probability(first + 1, second) > leader_probability(first, second)


def test_beta_is_exact_at_its_bound_and_with_more_votes_than_a_float_has_digits():
    assert leader_probability(2, 0) == 0.875
    assert Beta(confidence=0.875).should_stop(tally_of("00"))
    assert leader_probability(2000, 2000) == 0.5
    with pytest.raises(ValidationError):
        Beta(confidence=1)


def test_beta_uses_only_the_two_largest_counts():
    assert Beta().should_stop(tally_of("0000001234.")) == (leader_probability(6, 1) >= 0.95)


# -- lead


def test_lead_stops_at_first_samples_that_agree_or_at_a_lead():
    # 0100 is 3 to 1 after a disagreement; a sample without an answer agrees with nothing
    assert stops_at(Lead(lead=3, unanimous=2), "0 00 0100 01000 .. .00 .000") == ["00", "01000", ".000"]
    assert Lead(unanimous=1).should_stop(tally_of("0"))
    assert stops_at(Lead(lead=5, unanimous=2), "0 000 0000") == ["000", "0000"]
    assert stops_at(Lead(lead=1, unanimous=9), ". .. 0 01") == ["0"]


def test_lead_counts_short_samples_less():
    rule = Lead(lead=2, unanimous=3, short_weight=0.5)
    close = tally_of("010", (100, 40, 100))
    assert rule.vote_weights(close) == (1.0, 0.5, 1.0)
    assert not rule.should_stop(close)  # 2 to 0.5
    assert rule.should_stop(tally_of("01020", (100, 40, 100, 40, 100)))
    assert not Lead(lead=2, short_weight=0.5).should_stop(tally_of("0111", (100, 40, 40, 40)))
    assert rule.vote_weights(tally_of("01", (50, 50))) == (1.0, 1.0)  # equal lengths are not short
    assert rule.vote_weights(tally_of("01")) == (1.0, 1.0)  # lengths are unknown
    assert Lead().vote_weights(tally_of("01", (1, 99))) == (1.0, 1.0)


def test_lead_with_lengths_takes_single_samples_after_the_first_ones():
    rule = Lead(short_weight=0.5)
    assert rule.round_size(Tally(), 10) == 2
    assert rule.round_size(tally_of("01", (10, 20)), 10) == 1
    assert rule.round_size(tally_of("0101", (10, 20, 10, 20)), 10) == 1


@pytest.mark.parametrize("wrong", [{"lead": 0}, {"unanimous": 0}, {"short_weight": 0}, {"short_weight": 1.5}])
def test_lead_refuses_parameters_out_of_range(wrong):
    with pytest.raises(ValidationError):
        Lead(**wrong)


# -- first-finished


def test_first_finished_counts_answers_in_order_of_completion():
    rule = FirstFinished(finished=2)
    assert stops_at(rule, "0. 0.1 012") == ["0.1", "012"]
    assert rule.counts_by_completion
    assert not any(other.counts_by_completion for other in VOTING_RULES)
    assert rule.round_size(tally_of("0."), 10) == 1


# -- dirichlet


@given(st.integers(0, 40))
def test_with_one_answer_seen_the_gain_has_a_closed_form(votes):
    # p ~ Beta(v + 1, 1), density (v + 1) p^v: E[(1 - 2p)+] is an integral of a polynomial
    a = votes + 1
    exact = 0.5**a - 2 * a / (a + 1) * 0.5 ** (a + 1)
    assert expected_gain((votes,)) == pytest.approx(exact, abs=1e-10)


def test_the_gain_is_that_of_simulated_posteriors():
    rng = np.random.default_rng(5)
    for votes in [(3, 2), (2, 1, 1, 1, 1), (1,) * 8, (8, 7), (4, 3, 2, 1), (40, 30, 2)]:
        a = np.array([*votes, 0]) + 1.0
        largest = rng.dirichlet(a, 200_000).max(axis=1)
        error = 5 * largest.std() / math.sqrt(len(largest))
        assert expected_gain(votes) == pytest.approx(largest.mean() - a[0] / a.sum(), abs=error)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_the_gain_is_a_small_share_and_a_vote_for_the_leader_lowers_it_in_the_end(votes):
    votes = sorted(votes, reverse=True)
    gain = expected_gain(tuple(votes))
    assert 0 <= gain < 1
    assert expected_gain((votes[0] + 400, *votes[1:])) <= gain + 1e-9


def test_scattered_answers_stop_too():
    rule = Dirichlet(cost=0.1)
    assert rule.should_stop(tally_of(range(16)))
    assert not rule.should_stop(tally_of("012"))
    assert stops_at(Dirichlet(cost=0.1, min_samples=5), "0000 00000") == ["00000"]
    assert Dirichlet(cost=expected_gain((2, 1)), min_samples=3).should_stop(tally_of("010"))


# -- rounds


@settings(max_examples=60)
@given(tallies(), st.integers(1, 30), st.sampled_from(VOTING_RULES))
def test_a_round_is_the_fewest_that_could_be_enough(so_far, left, rule):
    round_size = rule.round_size(so_far, left)
    assert 1 <= round_size <= left
    if isinstance(rule, Agreement):
        return  # its run is at the end, not the leader's: its own test
    for fewer in range(1, round_size):
        assert not rule.should_stop(so_far.extended(fewer, agreeing=True))
        assert not rule.should_stop(so_far.extended(fewer, agreeing=False))
    if round_size < left:
        assert rule.should_stop(so_far.extended(round_size, agreeing=True)) or rule.should_stop(
            so_far.extended(round_size, agreeing=False)
        )


def test_the_first_round_of_beta_is_four():
    assert Beta().round_size(Tally(), 16) == 4
    assert Beta().round_size(Tally(), 3) == 3


@given(tallies())
def test_no_stop_takes_all_and_never_stops(so_far):
    assert not NoStop().should_stop(so_far)
    assert NoStop().round_size(so_far, 17) == 17


@given(tallies(), st.permutations(range(24)), st.sampled_from(VOTING_RULES[1:]))
def test_the_order_of_samples_and_the_names_of_answers_do_not_matter(so_far, order, rule):
    shuffled = [so_far.labels[i] for i in order if i < so_far.num_finished]
    names = {}
    renamed = tuple(None if label is None else names.setdefault(label, len(names)) for label in shuffled)
    assert rule.should_stop(tally_of(renamed)) == rule.should_stop(so_far)


def test_votes_are_counted_by_class():
    tally = tally_of("01.0")
    assert (tally.num_finished, tally.votes, tally.top_two()) == (4, (2, 1), (2, 1))
    assert tally_of("2").votes == (0, 0, 1)


def test_without_an_answer_there_are_no_classes():
    for empty in (Tally(), tally_of("..")):
        assert (empty.votes, empty.top_two()) == ((), (0, 0))


def test_further_samples_agree_with_the_leader_or_with_none():
    tally = tally_of("011", (5, 9, 7))
    agreeing, split = tally.extended(2, agreeing=True), tally.extended(2, agreeing=False)
    assert agreeing.labels == (0, 1, 1, 1, 1)
    assert split.labels == (0, 1, 1, 2, 3)
    for more in (agreeing, split):
        assert more.num_tokens == (5, 9, 7, 9, 9)
    assert tally_of("01").extended(1, agreeing=True).labels == (0, 1, 0)  # of equals, the first


def test_the_first_samples_that_agree_make_the_first_class():
    assert tally_of(".").extended(2, agreeing=True).labels == (None, 0, 0)
    assert Tally().extended(2, agreeing=False).labels == (0, 1)
