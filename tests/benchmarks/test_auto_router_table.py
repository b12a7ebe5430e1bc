"""The page of `benchmarks/auto_router.py`, from recorded samples whose best policy is known."""

import auto_router

N = 60


def row(model, i, answer, tokens):
    return {
        "model": model,
        "dataset": "made",
        "question_id": f"q{i}",
        "answer": answer,
        "correct": answer == "1",
        "completion_tokens": tokens,
    }


def rows():
    """A small model whose two samples agree where it is right, and a large one that is always right."""
    found = []
    for i in range(N):
        answers = ("1", "1") if i % 2 else ("2", "3")
        found += [row("x/small", i, answer, 10) for answer in answers]
        found += [row("x/large", i, "1", 100) for _ in range(2)]
    return found


def problem():
    texts = {f"q{i}": "short" if i % 2 else "a long one " * 40 for i in range(N)}
    return auto_router.sampled("made", "made answers", rows(), (1, 2), texts=texts)


def test_actions_are_models_with_their_samples():
    table = problem().table
    assert [(arm.strategy, arm.parameters["n"]) for arm in table.arms] == [
        ("small", 1),
        ("small", 2),
        ("small", "lead"),
        ("large", 1),
        ("large", 2),
        ("large", "lead"),
    ]
    assert table.samples.shape[:3] == (N, 6, len(auto_router.SEEDS))
    assert table.right.mean(axis=0).tolist() == [0.5, 0.5, 0.5, 1.0, 1.0, 1.0]
    assert table.cost[0].tolist() == [10.0, 20.0, 20.0, 100.0, 200.0, 200.0]


def test_the_stopping_rule_takes_samples_until_two_agree_at_first_or_one_leads_by_three():
    samples = [row("m", 0, answer, 5) for answer in ("1", "2", "1", "1", "1", "3")]
    assert len(auto_router.settled(samples)) == 5
    assert len(auto_router.settled(samples[2:])) == 2
    assert len(auto_router.settled(samples[:2])) == 2
