"""The tables of votes, stopping rules and races on recorded samples: what they compute, on rows made for the tests."""

from __future__ import annotations

import numpy as np
import pytest
import stopping
import thinking_models
import votes
from reason.reasoning.stopping import Agreement, Beta, Dirichlet, FirstFinished, Lead, Tally

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


def test_classes_are_numbered_as_they_come_and_know_if_they_are_right(orders):
    for labels, right in zip(
        orders.labels.reshape(-1, 12), orders.right.reshape(-1, orders.right.shape[2]), strict=True
    ):
        seen = [x for x in labels if x >= 0]
        assert sorted(set(seen), key=seen.index) == list(range(max(seen) + 1))
        assert (labels == -1).sum() == 1
        assert right.sum() <= 1


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


def test_the_first_to_finish_are_the_shortest_in_a_race_of_all(orders):
    race = stopping.race(orders, FirstFinished(finished=1), 12, by_completion=True)
    answered = np.where(orders.labels >= 0, orders.tokens, 10_000)
    assert (race.waiting == answered.min(2)).all()
    assert (race.tokens == np.minimum(orders.tokens, answered.min(2)[..., None]).sum(2)).all()


def test_a_majority_goes_to_the_class_reached_first_of_equals():
    orders = stopping.orders_of(rows(answers="abab", lengths=(1, 2, 3, 4)), 40)
    majority = stopping.majority(orders, 4)
    first_right = np.take_along_axis(orders.right, orders.labels[..., :1], 2)[..., 0]
    assert (majority.credit == first_right).all()
    assert (majority.tokens == 10).all()
    assert (majority.waiting == 4).all()


def test_the_choice_is_the_most_accurate_within_the_goal():
    def replay(credit, samples, tokens):
        return stopping.Replay(*(np.array([[float(x)]]) for x in (credit, samples, tokens, tokens)))

    replays = {Lead(): replay(0.8, 3, 400), Lead(lead=4): replay(0.9, 3.5, 400), Lead(lead=2): replay(0.7, 2, 300)}
    assert stopping.chosen(replays) == Lead()
    assert stopping.chosen({Lead(): replay(1, 9, 900), Lead(lead=2): replay(0, 8, 800)}) == Lead(lead=2)


def test_votes_split_ties_and_count_texts_once():
    row = {"gold": "x", "split_group": None}
    texts = [("x", 0, -0.1), ("x", 0, -0.1), ("y", 2, -0.2), ("y", 3, -0.2)]
    made = tuple({**row, "answer": a, "completion_id": i, "mean_logprob": s} for a, i, s in texts)
    question = votes.QuestionVotes("q", "q", "x", made)
    counted = votes.scored(question.vote("sc"), "x")
    assert (counted.winners, counted.credit, counted.confidence) == ({"x", "y"}, 0.5, 0.5)
    assert votes.scored(question.vote("pc"), "x").winners == {"y"}
    assert votes.ece([counted, votes.Scored(frozenset("x"), 1.0, 0.9)]) == pytest.approx(0.05)


def test_weights_by_length_decide_between_classes_and_waiting_is_the_longest():
    orders = stopping.orders_of(rows(answers="aabbb" + "bcc", lengths=(90, 90, 5, 5, 5, 5, 1, 1)), 5)
    by_length = thinking_models.weighted(lambda tokens: tokens)(orders)
    inverse = thinking_models.weighted(lambda tokens: 1 / tokens)(orders)
    assert (by_length.credit == 1).all()
    assert (inverse.credit == 0).all()
    assert (by_length.waiting == 90).all()


def test_the_shortest_samples_vote_and_the_others_are_paid_until_then():
    orders = stopping.orders_of(rows(answers="ababbbbb", lengths=(1, 20, 2, 30, 40, 50, 60, 70)), 5)
    first = thinking_models.shortest(2, answered=False)(orders)
    assert (first.credit == 1).all()
    assert (first.waiting == 2).all()
    assert (first.tokens == 1 + 7 * 2).all()
