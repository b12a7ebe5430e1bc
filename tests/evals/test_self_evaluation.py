"""What a model's judgement of its own samples is worth: exact values and invariances."""

import numpy as np
import pytest
from reason.core.errors import UserError
from reason.core.types import AnswerCandidate
from reason.evals.calibration import JudgedSamples, measure_self_evaluation, signal_quality, win_or_tie_rates
from support.calibration_maps import make_row, make_run


def judged(v, right):
    return JudgedSamples(np.array(v, float), np.array(right, float), np.arange(1.0, len(v) + 1))


def test_the_spec_s_targets():
    assert win_or_tie_rates(np.array([1.0, 1, 0, 0])) == pytest.approx([1, 1, 1 / 3, 1 / 3])
    assert win_or_tie_rates(np.zeros(5)) == pytest.approx(np.ones(5))
    assert win_or_tie_rates(np.array([0.5, 0.52, 0.9]), eps=0.05) == pytest.approx([0.5, 0.5, 1])
    with pytest.raises(UserError, match="at least two"):
        win_or_tie_rates(np.array([1.0]))


def test_within_and_across_are_counted_separately():
    # the first question is easy and the signal knows it; within both it is upside down
    result = signal_quality([judged([5, 4], [0, 1]), judged([1, 0], [0, 1])])
    assert (result.within.auroc, result.within.pairs) == (0.0, 2)
    # right ones 4 and 0, wrong ones of the other question 1 and 5
    assert result.across == 0.5
    assert (result.items, result.samples) == (2, 4)


def test_ties_count_half_and_one_kind_is_not_estimable():
    assert signal_quality([judged([1, 1], [1, 0])] * 3).within.auroc == 0.5
    result = signal_quality([judged([1, 2], [1, 1]), judged([0, 3], [0, 0])])
    assert (result.within.auroc, result.within.interval) == (None, None)
    assert result.across == pytest.approx(2 / 4)  # 1 > 0, 2 > 0, and 3 beats both


def test_the_line_finds_what_made_the_data():
    rng = np.random.default_rng(3)
    several = []
    for _ in range(400):
        v = rng.normal(0, 2, 8)
        right = rng.random(8) < 1 / (1 + np.exp(-v))
        several.append(judged(v, right))
    result = signal_quality(several)
    assert result.beta > 0.3
    assert result.brier[1] <= result.brier[0]
    assert result.within.auroc > 0.8
    assert result.within.interval.low < result.within.auroc < result.within.interval.high
    # no other line has a smaller loss against the targets
    v = np.concatenate([j.v for j in several])
    g = np.concatenate([win_or_tie_rates(j.right) for j in several])

    def loss(alpha, beta):
        odds = alpha + beta * v
        return float(np.mean(np.logaddexp(0, odds) - g * odds))

    best = loss(result.alpha, result.beta)
    for da, db in [(0.05, 0), (-0.05, 0), (0, 0.05), (0, -0.05)]:
        assert loss(result.alpha + da, result.beta + db) > best - 1e-6


# -- partial samples


def pruning_run(quality, *, keep=1.0, questions=20):
    """A run of questions with a right sample and two wrong ones; and its notes, with the judgements at 64 tokens."""
    answers = ("7", "8", "9")
    candidates = tuple(
        AnswerCandidate(text="t", answer=a, score=q, logprob=None, tokens=9)
        for a, q in zip(answers, (0.6, 0.5, 0.4), strict=True)
    )
    gold = {"type": "math", "answer": "7", "kind": "number"}
    rows = [make_row(f"q{i:02}", 0.5, True, gold=gold, candidates=candidates) for i in range(questions)]
    parameters = {"alpha": 0.0, "beta": 1.0, "prune_at": [64], "keep": keep}
    # the second sample ended first
    notes = {"indices": [1, 0, 2], "pruned": [{"at": 64, "live": 3, "ended": [], "quality": quality}]}
    return make_run(rows, strategy="adaptive", parameters=parameters), [notes] * questions


async def test_partial_samples_are_ranked_by_what_became_of_them():
    run, notes = pruning_run({"0": 0.2, "1": 0.3, "2": 0.9})  # the right one, of index 1, is above one of the two
    ((at, ranking),) = (await measure_self_evaluation(run, notes)).checkpoints.items()
    assert (at, ranking.auroc, ranking.pairs) == (64, 0.5, 40)


async def test_pruning_may_rely_on_the_worst_checkpoint_alone():
    run, notes = pruning_run({"0": 0.2, "1": 0.9, "2": 0.9})
    later = {"at": 128, "live": 3, "ended": [], "quality": {"0": 0.2, "1": 0.9, "2": 0.1}}
    notes = [{**noted, "pruned": [*noted["pruned"], later]} for noted in notes]
    measured = await measure_self_evaluation(run, notes)
    assert {at: ranking.auroc for at, ranking in measured.checkpoints.items()} == {64: 0.75, 128: 1.0}
    assert measured.pruning_auroc == 0.75
    assert (await measure_self_evaluation(run)).pruning_auroc is None


async def test_a_run_that_pruned_says_nothing_of_partial_samples():
    run, notes = pruning_run({"0": 0.2, "1": 0.3, "2": 0.9}, keep=0.5)
    assert (await measure_self_evaluation(run, notes)).checkpoints == {}
