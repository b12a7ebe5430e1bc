"""The test that one method is at most a margin worse than another."""

import numpy as np
import pytest
from non_inferiority import non_inferiority
from reason.core.errors import UserError
from reason.evals.statistics.outcomes import Outcomes
from scipy import stats
from support.paired_outcomes import exact_probabilities, pairs

EXACT = {"rel": 0, "abs": 1e-9}


def test_non_inferiority_by_hand():
    """Nothing differs: the most likely loss rate under the hypothesis is the margin, z = sqrt(n m / (1 - m))."""
    result = non_inferiority(*pairs(400, 0, 0, 100), margin=0.01)
    assert result.p == pytest.approx(float(stats.norm.sf(np.sqrt(500 * 0.01 / 0.99))), **EXACT)
    assert (result.test, result.status(), result.status(0.06)) == ("non-inferiority, margin 0.01", "shown", "not shown")
    with pytest.raises(UserError, match="not 1"):
        non_inferiority(*pairs(1, 0, 0, 0), margin=1)


def test_a_margin_of_nearly_nothing_is_the_score_form_of_mcnemar_s_test():
    result = non_inferiority(*pairs(10, 12, 5, 10), margin=1e-9)
    assert result.p == pytest.approx(float(stats.norm.sf((12 - 5) / np.sqrt(12 + 5))), abs=1e-6)


def test_the_most_likely_loss_rate_maximises_the_likelihood():
    """Tango's statistic from a search over the loss rate instead of his formula."""
    wins, losses, n, margin = 6, 9, 80, 0.1
    q = np.linspace(margin, 0.55, 900_001)[:-1]
    log = wins * np.log(np.maximum(q - margin, 1e-300)) + losses * np.log(q) + (n - 15) * np.log(1 - 2 * q + margin)
    best = float(q[np.argmax(log)])
    z = (wins - losses + n * margin) / np.sqrt(n * (2 * best - margin - margin**2))
    result = non_inferiority(*pairs(40, wins, losses, n - 55), margin=margin)
    assert result.p == pytest.approx(float(stats.norm.sf(z)), abs=1e-5)


@pytest.mark.parametrize("losses", [0.1, 0.12])
def test_a_loss_of_the_margin_is_seldom_called_non_inferior(losses):
    """All tables of 40 items in which a is worse by exactly the margin; the test is nominally of 5%."""
    called = 0.0
    for b, c, chance in exact_probabilities(40, losses - 0.1, losses):
        if chance > 1e-12:
            called += chance * (non_inferiority(*pairs(0, b, c, 40 - b - c), margin=0.1).p < 0.05)
    assert called < 0.06


def test_non_inferiority_of_several_seeds_is_a_clustered_t_test():
    scores = np.random.default_rng(3).integers(0, 2, (2, 30, 4)).astype(float)
    a, b = (Outcomes.of({f"i{i}": dict(enumerate(row)) for i, row in enumerate(s)}) for s in scores)
    d = scores[0].mean(axis=1) - scores[1].mean(axis=1)
    theirs = stats.ttest_1samp(d, -0.05, alternative="greater").pvalue
    assert non_inferiority(a, b, 0.05).p == pytest.approx(float(theirs), **EXACT)
    assert non_inferiority(a, a, 0.05).p == 1.0  # no spread: nothing to tell how another item would differ
