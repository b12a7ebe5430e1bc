"""The tables of votes, stopping rules and races on recorded samples: what they compute, on rows made for the tests."""

import numpy as np
import pytest
import stopping
import votes
from reason.reasoning.stopping import Agreement, Beta, Dirichlet, Lead, Tally

RULES = [Beta(), Agreement(window=3), Dirichlet(), Lead(), Lead(lead=2, unanimous=3, short_weight=0.5)]


def rows(question="q", answers="abacb", lengths=(5, 3, 8, 2, 9)):
    return [
        {"question_id": question, "sample": i, "answer": a, "correct": a == "a", "completion_tokens": n}
        for i, (a, n) in enumerate(zip(answers, lengths, strict=True))
    ]


@pytest.fixture(scope="module")
def orders():
    rng = np.random.default_rng(1)
    made = []
    for q in range(6):
        answers = rng.choice(list("aaabc"), 12).tolist()
        made += rows(f"q{q}", [None if i == q else a for i, a in enumerate(answers)], rng.integers(1, 40, 12).tolist())
    return stopping.orders_of(made, 15)


def one_by_one(rule, labels, tokens):
    for size in range(1, len(labels) + 1):
        seen = tuple(None if x < 0 else int(x) for x in labels[:size])
        tally = Tally(labels=seen, num_tokens=tuple(map(int, tokens[:size])))
        if rule.should_stop(tally):
            break
    sums = {}
    for label, weight in zip(seen, rule.vote_weights(tally), strict=True):
        if label is not None:
            sums[label] = sums.get(label, 0.0) + weight
    return size, max(sorted(sums), key=sums.get) if sums else -1


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_replay_stops_where_the_rule_does_sample_by_sample(orders, rule):
    count, winner = stopping.stops(orders, rule)
    for at in np.ndindex(*count.shape):
        assert (count[at], winner[at]) == one_by_one(rule, orders.labels[at], orders.tokens[at])


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_race_by_start_gives_the_answers_of_rounds(orders, rule):
    rounds = stopping.rounds(orders, rule)
    for width in (1, 3, 12):
        race = stopping.race(orders, rule, width, by_completion=False)
        assert (race.credit == rounds.credit).all()
        assert (race.samples == rounds.samples).all()
        assert (race.tokens >= rounds.tokens).all()
        assert (race.waiting <= rounds.waiting).all()
    assert (stopping.race(orders, rule, 1, by_completion=False).tokens == rounds.tokens).all()


def test_a_majority_goes_to_the_class_reached_first_of_equals():
    orders = stopping.orders_of(rows(answers="abab", lengths=(1, 2, 3, 4)), 40)
    majority = stopping.majority(orders, 4)
    first_right = np.take_along_axis(orders.right, orders.labels[..., :1], 2)[..., 0]
    assert (majority.credit == first_right).all()
    assert (majority.tokens == 10).all()
    assert (majority.waiting == 4).all()


def test_votes_split_ties_and_count_texts_once():
    row = {"gold": "x", "split_group": None}
    texts = [("x", 0, -0.1), ("x", 0, -0.1), ("y", 2, -0.2), ("y", 3, -0.2)]
    made = tuple({**row, "answer": a, "completion_id": i, "mean_logprob": s} for a, i, s in texts)
    question = votes.QuestionVotes("q", "q", "x", made)
    counted = votes.scored(question.vote("sc"), "x")
    assert (counted.winners, counted.credit, counted.confidence) == ({"x", "y"}, 0.5, 0.5)
    assert votes.scored(question.vote("pc"), "x").winners == {"y"}
    assert votes.ece([counted, votes.Scored(frozenset("x"), 1.0, 0.9)]) == pytest.approx(0.05)
