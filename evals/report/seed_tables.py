"""Seeds in the HTML report: the spread of each run, pass@k and its counterpart, greedy runs beside sampled ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..greedy import Greedy
from .content import RunContent
from .markup import NOT_ESTIMABLE, figure, figures, number, percent, table, text
from .plots import success_rates


def seeds(runs: Sequence[RunContent], greedy: Sequence[Greedy]) -> str:
    """How far each run's score depends on its seeds. A run of one seed says that it cannot tell."""
    rows = [_row(run) for run in runs]
    heads = (
        "run",
        "seeds",
        "mean %",
        "sd",
        "range",
        "two seeds disagree %",
        "always right %",
        "never right %",
        "pass@k %",
        "fail@k %",
    )
    drawn = [figure(success_rates(r), f"{r.label}: items by share of right seeds.") for r in runs]
    several = [d for d in drawn if d]
    shown = (
        table(heads, rows)
        + '<p class="soft small">pass@k is the chance that at least one of k seeds is right, fail@k that at least one '
        "is wrong, at k = 1, 2, 4, … and all seeds.</p>"
        + (figures(several, "Items by share of right seeds") if several else "")
        + _greedy(greedy)
    )
    if not several and not greedy:
        said = f"<b>Seeds</b>: one a run, so what another seed would give is {NOT_ESTIMABLE}"
        return f"<details><summary>{said}</summary>{shown}</details>"
    return f"<h3>Seeds</h3>{shown}"


def _row(run: RunContent) -> str:
    s = run.summary.spread
    begin = f"<tr><td>{text(run.label)}</td>{number(str(s.seeds))}{number(percent(s.mean))}"
    if s.seeds == 1:
        return f'{begin}<td class="num soft" colspan="7">{NOT_ESTIMABLE} with one seed</td></tr>'
    cells = (
        percent(s.sd, NOT_ESTIMABLE),
        f"{percent(s.low)} … {percent(s.high)}",
        percent(s.instability, NOT_ESTIMABLE),
        percent(s.always),
        percent(s.never),
    )
    tries = "".join(f'<td class="text">{_by_k(found)}</td>' for found in (run.summary.pass_at, run.summary.fail_at))
    return f"{begin}{''.join(map(number, cells))}{tries}</tr>"


def _by_k(found: Mapping[int, float]) -> str:
    """Values at 1, 2, 4, … and at the last k: with many seeds, all of them would fill the page."""
    last = max(found, default=0)
    shown = [k for k in found if k == last or k & (k - 1) == 0]
    return ", ".join(f"{k}: {100 * found[k]:.1f}" for k in shown) or NOT_ESTIMABLE


def _greedy(pairs: Sequence[Greedy]) -> str:
    if not pairs:
        return ""
    rows = [
        f"<tr><td>{text(p.greedy)} <span class='soft'>beside</span> {text(p.sampled)}</td>"
        + "".join(
            map(
                number,
                (
                    percent(p.greedy_accuracy),
                    percent(p.sampled_accuracy),
                    percent(p.best, NOT_ESTIMABLE),
                    NOT_ESTIMABLE if p.sampling_gap is None else f"{100 * p.sampling_gap:+.1f}",
                    f"{100 * p.fragility:+.1f}",
                ),
            )
        )
        + "</tr>"
        for p in pairs
    ]
    return (
        "<h3>Greedy beside sampled</h3>"
        + table(("run", "greedy %", "sampled mean %", "right under any seed %", "sampling gap", "fragility"), rows)
        + '<p class="soft small">The sampling gap is what picking the best sample could add to the greedy run, in '
        "points. Fragility is the part of the greedy accuracy that some samples get wrong.</p>"
    )
