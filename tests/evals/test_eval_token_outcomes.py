"""The worked values of SCOPE, REACH and one-token verdicts, by enumerating every path."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.evals.statistics.token_outcomes import reach_score, scope_score, verdict

EXACT = {"rel": 0, "abs": 1e-9}
HORIZON = 6


def chance(path: str) -> dict[str, float]:
    """The toy chain: outcome `o` depends on the b so far, the end `e` has 1/4, the rest to a and b."""
    outcome = 0.05 + 0.1 * (path.count("b") % 3)
    rest = 1 - outcome - 0.25
    return {"o": outcome, "e": 0.25, "a": 0.6 * rest, "b": 0.4 * rest}


def without_outcome(path: str) -> dict[str, float]:
    chances = chance(path)
    return {t: p / (1 - chances["o"]) for t, p in chances.items() if t != "o"}


def moments(next_tokens: Callable[[str], dict[str, float]], score: Callable[[str, list[float]], float]):
    """Mean, variance and largest value of a score over all paths."""
    done: list[tuple[float, float]] = []

    def walk(path: str, p: float, h: list[float]) -> None:
        if path[-1:] in ("o", "e") or len(path) == HORIZON:
            done.append((p, score(path, h)))
            return
        for token, q in next_tokens(path).items():
            walk(path + token, p * q, [*h, chance(path)["o"]])

    walk("", 1.0, [])
    assert sum(p for p, _ in done) == pytest.approx(1.0, **EXACT)
    mean = sum(p * s for p, s in done)
    return mean, sum(p * (s - mean) ** 2 for p, s in done), max(s for _, s in done)


def test_the_toy_chain_of_the_paper_notes() -> None:
    mc = moments(chance, lambda path, h: float(path.endswith("o")))
    scope = moments(chance, lambda path, h: scope_score(h))
    reach = moments(without_outcome, lambda path, h: reach_score(h))
    assert mc[0] == pytest.approx(0.2551202, abs=5e-8)
    assert scope[0] == pytest.approx(mc[0], **EXACT)
    assert reach[0] == pytest.approx(mc[0], **EXACT)
    assert (mc[1], scope[1], reach[1]) == pytest.approx((0.190034, 0.055778, 0.039445), abs=5e-7)
    assert scope[2] == pytest.approx(1.2, **EXACT)


@given(st.floats(0, 1), st.integers(1, 20))
def test_a_constant_chance_has_no_variance(h: float, horizon: int) -> None:
    assert reach_score([h] * horizon) == pytest.approx(1 - (1 - h) ** horizon, **EXACT)


def test_an_outcome_at_once_counts() -> None:
    assert scope_score([0.3]) == pytest.approx(0.3, **EXACT)


@given(st.lists(st.tuples(st.floats(0.001, 0.5), st.floats(0.001, 0.5)), min_size=2, max_size=12))
def test_probabilities_never_vary_more_than_sampled_words(draws: list[tuple[float, float]]) -> None:
    """Over random draws Z: Var(v(Z)) ≤ Var(v(Z)) + E[v(1 - v)] = Var(Y), equal where every v is 0 or 1."""
    yes, no = np.array([y for y, _ in draws]), np.array([n for _, n in draws])
    v = yes / (yes + no)
    found = verdict(yes, no)
    assert found.mean == pytest.approx(float(v.mean()), **EXACT)
    assert found.coverage == pytest.approx(float((yes + no).mean()), **EXACT)
    mean = float(v.mean())
    assert found.se**2 * (len(v) - 1) <= mean * (1 - mean) + 1e-12


def test_certain_verdicts_vary_as_words_do() -> None:
    found = verdict(np.array([0.8, 0.0, 0.5, 0.0]), np.array([0.0, 0.9, 0.0, 0.7]))
    assert found.mean == 0.5
    assert found.se**2 * 3 == pytest.approx(0.25, **EXACT)


def test_one_draw_has_no_error_and_none_is_refused() -> None:
    assert verdict(np.array([0.6]), np.array([0.2])).se is None
    with pytest.raises(UserError):
        verdict(np.array([0.0]), np.array([0.0]))
