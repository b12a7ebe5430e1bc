"""Exact match and F1 of short answers: worked values, and SQuAD's and HotpotQA's definitions written out anew."""

import pytest
from reason.evals.datasets.items import TextGold
from reason.evals.scoring import answer_f1, score_text
from support.eval_tasks import answered


@pytest.mark.parametrize(
    ("said", "right", "f1"),
    [
        ("1965", "1965", 1.0),
        ("October 16, 1962", "16 October 1962", 1.0),  # the words of a day in any order
        ("born in 1962", "October 16, 1962", 2 * (1 / 3) * (1 / 3) / (2 / 3)),  # 1 of 3 and 1 of 3
        ("It was The Beatles.", "the Beatles", 2 * (1 / 3) * 1 / (4 / 3)),  # 1 of 3 and 1 of 1
        ("New York City, New York", "New York", 2 * (2 / 5) * 1 / (7 / 5)),  # each word counts as often as it is there
        ("A", "the", 1.0),  # no word is left of either
        ("A", "Beatles", 0.0),
        ("yes", "Yes.", 1.0),
        ("yes", "no", 0.0),
        ("no", "no, he was not", 0.0),  # shares a word, and is another answer
        ("yes they were", "yes", 0.0),
        ("noanswer", "noanswer given", 0.0),
        ("The Yes Men", "yes men", 1.0),  # no yes
    ],
)
def test_f1_by_hand(said, right, f1):
    assert answer_f1(said, right) == pytest.approx(f1, abs=1e-12)
    assert answer_f1(right, said) == pytest.approx(f1, abs=1e-12)


def test_the_best_alias_counts_for_each_score():
    gold = TextGold(answers=("Los Angeles, California", "Los Angeles"))
    for said, match, f1 in [
        ("los angeles", 1.0, 1.0),
        ("Los Angeles California", 1.0, 1.0),
        ("Los Angeles, CA", 0.0, 2 * 2 / (3 + 2)),
        ("San Francisco, California", 0.0, 2 * 1 / (3 + 3)),
        ("Leeds", 0.0, 0.0),
    ]:
        result = score_text(gold, answered(said))
        assert (result.value, result.correct) == (match, match == 1.0)
        assert result.metrics["f1"] == pytest.approx(f1, abs=1e-12)
