"""The tables of `step_search_bench.py`: accuracy by size, at equal tokens, and cost at equal accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from step_curves import Curves, less, saving, table

Key = tuple[int, float, float]
"""A setting: steps, rho, AUC."""

BEST, FILTER, SAMPLED = "best-of-N", "particle filter", "self-consistency"
PLAIN = ("A*, k = N", "A*, k = 4, best of N/4")
RIVALS = ("beam", "DVTS", FILTER, "particle Gibbs", *PLAIN)
"""The searches, each with one way to pick its answer."""
SHOWN = (BEST, SAMPLED, "best-of-N, weighted", *RIVALS)


def chain_tokens(curves: Curves) -> float:
    """Mean tokens of a plain chain."""
    return float(curves[BEST].tokens[:, curves[BEST].at(1)].mean())


def by_size(settings: Mapping[Key, Curves]) -> str:
    """Accuracy at each size with its cost, a table for each setting."""
    parts = []
    for (depth, _, auc), curves in settings.items():
        sizes = curves[BEST].sizes
        unit, widest, rows = chain_tokens(curves), 0.0, []
        for name in (name for name in SHOWN if name in curves):
            curve, cells = curves[name], [name]
            for n in sizes:
                if n not in curve.sizes:
                    cells.append("")
                    continue
                at = curve.at(n)
                mean, low, high = curve.share(n)
                widest = max(widest, high - mean, mean - low)
                cells.append(f"{100 * mean:.1f} @ {curve.tokens[:, at].mean() / unit:.1f}")
            rows.append(cells)
        head = [f"{depth} steps, AUC {auc}: accuracy % @ tokens", *(f"N = {n}" for n in sizes)]
        parts.append(
            f"{table(head, rows)}\n\nTokens are in plain chains of {unit:.0f}. No interval of an accuracy reaches "
            f"further than {100 * widest:.1f} points.\n"
        )
    return "\n".join(parts)


def at_equal_tokens(settings: Mapping[Key, Curves], size: int, names: Sequence[str] = SHOWN) -> str:
    """Accuracy less best-of-N's, in points, where each method generates the tokens of best-of-N at a size."""
    rows = [
        [str(depth), str(rho), str(auc), *_differences(curves, size, names)]
        for (depth, rho, auc), curves in settings.items()
    ]
    return table(["steps", "rho", "AUC", *_head(size, names)], rows)


def by_world(worlds: Mapping[str, Curves], size: int, names: Sequence[str]) -> str:
    """The same for worlds that have names."""
    return table(["", *_head(size, names)], [[label, *_differences(c, size, names)] for label, c in worlds.items()])


def by_choice(settings: Mapping[str, Curves], size: int) -> str:
    """The same with a row for each method and a column for each setting."""
    names = dict.fromkeys(name for curves in settings.values() for name in curves if name != BEST)
    columns = [_differences(curves, size, [BEST, *names]) for curves in settings.values()]
    rows = [[name, *(column[1 + i] for column in columns)] for i, name in enumerate(names)]
    base = [f"{BEST} itself, N = {size}", *(column[0] for column in columns)]
    return table(["", *settings], [base, *rows])


def _head(size: int, names: Sequence[str]) -> list[str]:
    return [f"{BEST}, N = {size}", *(name for name in names if name != BEST), "most accurate"]


def _differences(curves: Curves, size: int, names: Sequence[str]) -> list[str]:
    """Best-of-N's accuracy, the differences, and who is first; clearly, if its interval lies above 0."""
    best = curves[BEST]
    tokens = float(best.tokens[:, best.at(size)].mean())
    mean, low, high = best.share(size)
    cells, most, first = [f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"], 0.0, BEST
    for name in names:
        if name == BEST:
            continue
        gap = less(curves, name, BEST, tokens) if name in curves else None
        cells.append("" if gap is None else f"{100 * gap.value:+.1f} [{100 * gap.low:.1f}, {100 * gap.high:.1f}]")
        if gap is not None and gap.value > most:
            most, first = gap.value, name if gap.low > 0 else f"{name}, not clearly"
    return [*cells, first]


def at_equal_accuracy(settings: Mapping[Key, Curves]) -> str:
    """How many times the cost of best-of-N, and of the particle filter, a method saves: tables for both costs."""
    depths = list(dict.fromkeys(key[0] for key in settings))
    aucs = list(dict.fromkeys(key[2] for key in settings))
    parts = []
    for goal, other, passes in (
        (BEST, BEST, False),
        (BEST, FILTER, False),
        (FILTER, FILTER, False),
        (BEST, BEST, True),
        (BEST, FILTER, True),
    ):
        rows = []
        for depth in depths:
            here = {auc: curves for (d, _, auc), curves in settings.items() if d == depth}
            for name in RIVALS:
                if name != other:
                    ratios = [saving(here[auc], name, other, goal, 16, passes=passes) for auc in aucs]
                    rows.append([str(depth), name, *map(str, ratios)])
        unit = "passes" if passes else "tokens"
        head = ["steps", f"{unit} of the {other} / of this method, at the accuracy of the {goal} with N = 16"]
        parts.append(table([*head, *(f"AUC {auc}" for auc in aucs)], rows) + "\n")
    return "\n".join(parts)


def scaling(settings: Mapping[Key, Curves]) -> str:
    """How many times fewer tokens the particle filter needs for what beam search and DVTS reach."""
    goals = [(goal, n) for goal in ("beam", "DVTS") for n in (8, 32, 64)]
    rows = [
        [str(depth), str(auc), *(str(saving(curves, FILTER, goal, goal, n)) for goal, n in goals)]
        for (depth, _, auc), curves in settings.items()
    ]
    return table(["steps", "AUC", *(f"{goal} at N = {n}" for goal, n in goals)], rows)
