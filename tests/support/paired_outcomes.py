"""Outcomes of two methods on the same items, by hand and enumerated."""

from __future__ import annotations

from math import factorial

from reason.evals.statistics.outcomes import Outcomes


def of(values: list[float]) -> Outcomes:
    return Outcomes.of({f"i{i}": {0: v} for i, v in enumerate(values)})


def pairs(both: int, wins: int, losses: int, neither: int) -> tuple[Outcomes, Outcomes]:
    """Two runs with so many items of each kind."""
    kinds = [(1, 1)] * both + [(1, 0)] * wins + [(0, 1)] * losses + [(0, 0)] * neither
    return of([a for a, _ in kinds]), of([b for _, b in kinds])


def exact_probabilities(n: int, wins: float, losses: float) -> list[tuple[int, int, float]]:
    """Every (wins, losses) of n items with its probability."""
    rest = 1 - wins - losses
    return [
        (
            b,
            c,
            factorial(n)
            / factorial(b)
            / factorial(c)
            / factorial(n - b - c)
            * wins**b
            * losses**c
            * rest ** (n - b - c),
        )
        for b in range(n + 1)
        for c in range(n + 1 - b)
    ]
