"""Whether places decide: where the options stand that jurors choose, and the answers that reviewers prefer.

And whether jurors err together: what the same models get wrong, a vote of theirs cannot put right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from davinci_cells import table
from edgejury_cells import short
from edgejury_sittings import Heard, place_of, right_letter
from reason.evals.comparison import StoredRun
from reason.evals.statistics.intervals import bootstrap_means, percentiles
from reason.evals.statistics.outcomes import Array, number_groups
from reason.verify.edgejury.opinions import Opinion
from reason.verify.edgejury.position_bias import position_bias
from reason.verify.edgejury.ranking import borda_of, marks_of

Place = tuple[int, int]
"""A place that was chosen, from 0, and the number of options."""
Places = Mapping[tuple[str, int], Place]
"""Those of an author by question and seed."""

SHOWN_PLACES = 5
ALL = "all"
"""Reviewers of every model."""


# -- options


def places_table(jurors: Sequence[tuple[str, Places]], finals: Sequence[tuple[str, Places]]) -> str:
    """Where the chosen options stand, beside chance.

    Args:
        jurors: Whose choices, and the places as it saw them.
        finals: Which answers, and the places in the question's order.
    """
    head = [
        *("who", "options as", "answers", "first place %", "by chance %", "more than chance [95 %]", "p", "distance"),
        *(f"{place} chosen / expected" for place in range(1, SHOWN_PLACES + 1)),
    ]
    rows = []
    for seen, several in (("it saw them", jurors), ("the question has them", finals)):
        for name, places in several:
            if not places:
                continue
            found = position_bias(list(places.values()))
            each = [
                f"{found.counts[at]} / {found.expected[at]:.1f}" if at < len(found.counts) else ""
                for at in range(SHOWN_PLACES)
            ]
            rows.append(
                [
                    *(name, seen, str(found.answers), f"{100 * found.first:.1f}", f"{100 * found.first_by_chance:.1f}"),
                    *(points(*_mean(list(places), excess(places))), f"{found.p:.3f}", f"{found.distance:.3f}", *each),
                ]
            )
    return table(head, rows)


def debiased(with_orders: Places, without: Places) -> str:
    """How far beyond chance the first option is answered with permuted options, less without, in points."""
    shared = [key for key in with_orders if key in without]
    if not shared:
        return "no row in common"
    apart = excess({key: with_orders[key] for key in shared}) - excess({key: without[key] for key in shared})
    return f"{points(*_mean(shared, apart))} ({len(shared)} rows)"


def excess(places: Places) -> Array:
    """For each answer whether it is the first option, less the chance of that: 0 in the mean without a bias."""
    return np.array([(place == 0) - 1 / options for place, options in places.values()], dtype=float)


def juror_places(heard: Heard, juror: int) -> dict[tuple[str, int], Place]:
    """The places that a juror chose, as it saw the options."""
    return {
        row.key: (place, len(row.choices)) for row, sitting in heard.sat if (place := sitting.place(juror)) is not None
    }


def final_places(run: StoredRun) -> dict[tuple[str, int], Place]:
    """The places of the answers, as the questions have the options."""
    return {row.key: (place, len(row.choices)) for row in run.rows if (place := place_of(row)) is not None}


# -- answers under review


def marks_table(several: Sequence[tuple[str, Heard]]) -> str:
    """Mean B within a review by the place at which a text was shown, where every text that was shown has marks.

    Args:
        several: Juries by name; of the first, the reviews of each model stand beside those of all.
    """
    head = ("jury", "reviewer", "texts shown", "reviews", "marks missing", "mean B by place [95 %]", "first less last")
    rows = []
    for number, (name, heard) in enumerate(several):
        for (model, shown), (keys, values, missing) in sorted(borda_by_place(heard).items()):
            if number and model != ALL:
                continue
            cells = ["", ""]
            if keys:
                rounds = bootstrap_means(values, number_groups([key[0] for key in keys]))
                low, high = percentiles(rounds)
                means = values.mean(axis=0)
                each = [f"{m:.2f} [{a:.2f}, {b:.2f}]" for m, a, b in zip(means, low, high, strict=True)]
                apart = percentiles(rounds[:, 0] - rounds[:, -1])
                ends = f"[{float(apart[0]):+.2f}, {float(apart[1]):+.2f}]"
                cells = [" · ".join(each), f"{means[0] - means[-1]:+.2f} {ends}"]
            rows.append([name, model, str(shown), str(len(keys)), str(missing), *cells])
    return table(head, rows)


def borda_by_place(heard: Heard) -> dict[tuple[str, int], tuple[list[tuple[str, int]], Array, int]]:
    """B by place of each review, by the reviewer's model ("all" for all of them) and the number of texts shown.

    Returns:
        The questions of the reviews; B, `[reviews, places]`; and how many reviews left a text without marks.
    """
    given = heard.run.manifest.plan.parameters
    weights = given["weights"]
    assert isinstance(weights, list | tuple)
    criteria = (float(str(weights[0])), float(str(weights[1])), float(str(weights[2])))
    found: dict[tuple[str, int], tuple[list[tuple[str, int]], list[list[float]], list[int]]] = {}
    for row, sitting in heard.sat:
        models = {opinion.juror: short(opinion.model) for opinion in sitting.opinions}
        for review in sitting.reviews:
            if not review.ok or len(review.order) < 2:
                continue
            marks = marks_of(review, criteria, exclude_self=given["exclude_self"] is True)
            whole = all(juror in marks for juror in review.order)
            borda = borda_of(marks)
            for model in (ALL, models.get(review.reviewer, "")):
                keys, values, missing = found.setdefault((model, len(review.order)), ([], [], []))
                if whole:
                    keys.append(row.key)
                    values.append([float(borda[juror]) for juror in review.order])
                else:
                    missing.append(1)
    return {key: (keys, np.array(values, dtype=float), len(missing)) for key, (keys, values, missing) in found.items()}


# -- errors


def errors_table(several: Sequence[tuple[str, Heard]]) -> str:
    """How far every two jurors err on the same questions, and choose the same wrong option there."""
    head = (
        *("jury", "jurors", "questions", "wrong %", "both wrong %", "if independent %"),
        *("both wrong, the same option %", "correlation of errors [95 %]"),
    )
    rows = []
    for name, heard in several:
        for a, b in combinations(sorted({o.juror for _, s in heard.sat for o in s.opinions}), 2):
            rows.append([name, *_together(heard, a, b)])
    return table(head, rows)


def correlation(wrong_a: Array, wrong_b: Array, groups: Sequence[str]) -> tuple[float, float, float] | None:
    """The correlation (phi) of two jurors' errors with its interval; None where one is always right or always wrong."""
    columns = np.stack([wrong_a, wrong_b, wrong_a * wrong_b], axis=1)
    value = _phi(columns.mean(axis=0))
    if np.isnan(value):
        return None
    drawn = _phi(bootstrap_means(columns, number_groups(groups)).T)
    low, high = percentiles(drawn[~np.isnan(drawn)])
    return float(value), float(low), float(high)


def _together(heard: Heard, a: int, b: int) -> list[str]:
    told: list[tuple[str, bool, bool, bool]] = []
    names: dict[int, str] = {}
    for row, sitting in heard.sat:
        by_juror: dict[int, Opinion] = {opinion.juror: opinion for opinion in sitting.opinions}
        if a not in by_juror or b not in by_juror:
            continue
        names = {i: f"{i + 1} ({short(by_juror[i].model)})" for i in (a, b)}
        first, second, right = by_juror[a].choice, by_juror[b].choice, right_letter(row)
        same = first == second and first is not None and first != right
        told.append((row.id, first != right, second != right, same))
    if not told:
        return [f"{a + 1}, {b + 1}", "0", "", "", "", "", ""]
    wrong_a, wrong_b, same_wrong = (np.array([one[i] for one in told], dtype=float) for i in (1, 2, 3))
    both = float((wrong_a * wrong_b).mean())
    found = correlation(wrong_a, wrong_b, [one[0] for one in told])
    return [
        f"{names[a]}, {names[b]}",
        str(len(told)),
        f"{100 * wrong_a.mean():.1f}, {100 * wrong_b.mean():.1f}",
        f"{100 * both:.1f}",
        f"{100 * wrong_a.mean() * wrong_b.mean():.1f}",
        f"{100 * same_wrong.mean():.1f}",
        "one never varies" if found is None else f"{found[0]:+.2f} [{found[1]:+.2f}, {found[2]:+.2f}]",
    ]


def _phi(means: Array) -> Array:
    """The correlation from the means of a, b and ab, which stand along the first axis."""
    a, b, ab = means
    spread = np.sqrt(a * (1 - a) * b * (1 - b))
    value: Array = np.where(spread > 0, (ab - a * b) / np.where(spread > 0, spread, 1.0), np.nan)
    return value


def _mean(keys: Sequence[tuple[str, int]], values: Array) -> tuple[float, float, float]:
    """A mean with its interval over questions."""
    low, high = percentiles(bootstrap_means(values, number_groups([key[0] for key in keys])))
    return float(values.mean()), float(low), float(high)


def points(value: float, low: float, high: float) -> str:
    """A share in points with its interval."""
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
