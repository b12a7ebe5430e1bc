"""The tables of `edgejury_table.py` that have a row for each method: right answers, costs, and how juries went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from davinci_cells import table
from edgejury_cells import (
    EVERYTHING,
    MAJORITY,
    PATHS,
    beside,
    has_names,
    is_majority,
    is_whole,
    jury_cells,
    like,
    method_of,
    names_of,
    seconds,
    short,
    tokens_of,
)
from edgejury_sittings import JURY, Heard, alone, jurors_count
from edgejury_sweeps import equal_calls
from edgejury_trust import no_answer
from reason.evals.comparison import StoredRun
from rlot_table import accuracy, beside_sampling, mean_of_rows

Named = tuple[str, StoredRun]
"""A method's name and its run."""


@dataclass(frozen=True)
class Jury:
    """One jury with what it is compared with, on one dataset.

    Attributes:
        sat: The runs of its jurors: whole, in parts, and as a vote; by name.
        alone: Its jurors as methods of their own.
        chains: One sample of a model each.
        sampled: Self-consistency of its main model, by rising number of samples.
    """

    sat: tuple[tuple[str, Heard], ...]
    alone: tuple[Named, ...]
    chains: tuple[Named, ...]
    sampled: tuple[Named, ...]

    @property
    def methods(self) -> list[Named]:
        """All of them, in the order of the tables."""
        return [*self.chains, *self.alone, *self.sampled, *((name, heard.run) for name, heard in self.sat)]

    @property
    def best(self) -> Named | None:
        """The single model or juror that has most right answers on these very rows; None if there is none."""
        single = [*self.chains, *self.alone]
        return max(single, key=lambda named: mean_right(named[1]), default=None)

    def named(self, name: str) -> Heard | None:
        """The run of this jury with that name; None if there is none."""
        return next((heard for other, heard in self.sat if other == name), None)

    @property
    def equal_calls(self) -> Named | None:
        """Self-consistency with as many samples as the jury makes calls; None if it was not run."""
        wanted = equal_calls(jurors_count(self.sat[0][1].run))
        return next((one for one in self.sampled if one[1].manifest.plan.parameters["n"] == wanted), None)


def juries_of(heard: Sequence[Heard]) -> list[Jury]:
    """The juries of named models, each with what it is compared with."""
    by_models: dict[str, list[Heard]] = {}
    for one in heard:
        if one.run.manifest.plan.strategy == JURY and has_names(one.run):
            by_models.setdefault(str(sorted(one.run.manifest.plan.models.items())), []).append(one)
    runs = [one.run for one in heard]
    found = []
    for several in by_models.values():
        sat = sorted(several, key=lambda one: _order(one.run))
        models = sat[0].run.manifest.plan.models
        chains = [r for r in runs if (p := r.manifest.plan).strategy == "cot" and p.models["main"] in models.values()]
        sampled = [
            r
            for r in runs
            if (p := r.manifest.plan).strategy == "self-consistency" and p.models["main"] == models["main"]
        ]
        sampled.sort(key=lambda r: int(str(r.manifest.plan.parameters["n"])))
        found.append(
            Jury(
                sat=tuple(zip(names_of([one.run for one in sat]), sat, strict=True)),
                alone=tuple(jurors_alone(_shown(sat))),
                chains=tuple(zip(names_of(chains), chains, strict=True)),
                sampled=tuple(zip(names_of(sampled), sampled, strict=True)),
            )
        )
    return found


def jurors_alone(heard: Heard) -> list[Named]:
    """The jurors of a run as methods of their own."""
    who = {o.juror: o for _, sitting in heard.sat for o in sitting.opinions}
    return [
        (f"juror {i + 1} alone: {short(o.model)}" + (f", {o.role}" if o.role else ""), alone(heard, i))
        for i, o in sorted(who.items())
    ]


def right_table(jury: Jury) -> str:
    """Right answers, each method beside the best single one, the majority and self-consistency."""
    best, calls, vote, whole = jury.best, jury.equal_calls, jury.named(MAJORITY), jury.named(EVERYTHING)
    head = (
        *("method", "rows", "right % [95 %]", "less the best single one", "less the majority"),
        *("less self-consistency at equal calls", "less self-consistency at its tokens [95 %]", f"less {EVERYTHING}"),
    )
    sampled = [run for _, run in jury.sampled]
    rows = []
    for name, run in jury.methods:
        single = best is not None and run is best[1]
        rows.append(
            [
                f"{name} (the best single one)" if single else name,
                rows_cell(run),
                accuracy(run),
                beside(run, None if best is None else best[1]),
                beside(run, None if vote is None else vote.run),
                beside(run, None if calls is None else calls[1]),
                "" if run in sampled else beside_sampling(run, sampled),
                beside(run, None if whole is None else whole.run),
            ]
        )
    return table(head, rows)


def costs_table(jury: Jury, timed: Sequence[StoredRun]) -> str:
    """What each method costs a question; seconds from the runs that were asked one question at a time.

    Args:
        jury: The jury and its rivals.
        timed: Those runs.
    """
    models = list(dict.fromkeys(m for _, heard in jury.sat for m in heard.run.manifest.plan.models.values()))
    clocked = dict(zip(names_of(timed), timed, strict=True))
    head = [
        *("method", "tokens written", "tokens read", "calls", "no option named %"),
        *(f"written by {short(model)}" for model in models),
        "written anew",
        *(["s p50 / p95 (n)"] if timed else []),
    ]
    single = {id(run) for _, run in jury.alone}
    rows = []
    for name, run in jury.methods:
        cells = [name, f"{mean_of_rows(run, 'completion_tokens'):,.0f}"]
        if id(run) in single:
            cells += ["", "", no_answer(run), *[""] * (len(models) + 1)]
        else:
            cells += [f"{mean_of_rows(run, 'prompt_tokens'):,.0f}", f"{mean_of_rows(run, 'model_calls'):.1f}"]
            cells += [no_answer(run), *(f"{tokens_of(run, model):,.0f}" for model in models)]
            cells.append(f"{mean_of_rows(run, 'paid_tokens'):,.0f}")
        if timed:
            clock = clocked.get(name) if id(run) not in single else None
            cells.append("" if clock is None else seconds(clock.rows))
        rows.append(cells)
    return table(head, rows)


def went_table(several: Sequence[tuple[str, Heard]]) -> str:
    """The ways that juries took, and how much of what was written could be read."""
    head = ("method", *(f"{way} %" for way in PATHS), "reviews read %", "chair's answers read %", "chair overruled %")
    found = [(name, jury_cells(heard)) for name, heard in several]
    return table(head, [[name, *cells] for name, cells in found if cells is not None])


def one_model_table(heard: Sequence[Heard], chains: Sequence[StoredRun]) -> str:
    """Juries of one model in several roles, beside the model alone and beside the vote of as many jurors."""
    head = (
        *("method", "rows", "right % [95 %]", "less the model alone, one sample", "less the majority of as many"),
        *("tokens written", "tokens read", "calls", "no option named %", *(f"{way} %" for way in PATHS)),
    )
    runs = [one.run for one in heard]
    rows = []
    for name, one in zip(names_of(runs), heard, strict=True):
        run, plan = one.run, one.run.manifest.plan
        chain = next((c for c in chains if c.manifest.plan.models["main"] == plan.models["main"]), None)
        vote = None if is_majority(run) else _vote(run, runs)
        ways = jury_cells(one)
        rows.append(
            [
                f"{short(plan.models['main'])}, {name}",
                *(rows_cell(run), accuracy(run), beside(run, chain), beside(run, vote)),
                *(f"{mean_of_rows(run, key):,.0f}" for key in ("completion_tokens", "prompt_tokens")),
                *(f"{mean_of_rows(run, 'model_calls'):.1f}", no_answer(run)),
                *([""] * len(PATHS) if ways is None else ways[: len(PATHS)]),
            ]
        )
    return table(head, rows)


def likelihood_table(runs: Sequence[StoredRun]) -> str:
    """Right answers by log-probability, where nothing is generated."""
    return table(
        ("model", "rows", "right % [95 %]"),
        [[short(run.manifest.plan.models["main"]), rows_cell(run), accuracy(run)] for run in runs],
    )


def rows_cell(run: StoredRun) -> str:
    """How many rows there are, of how many that were to be."""
    wanted = len(run.manifest.keys)
    return str(len(run.rows)) if len(run.rows) == wanted else f"{len(run.rows)} of {wanted}"


def mean_right(run: StoredRun) -> float:
    """Share of right answers."""
    return float(np.mean([row.value for row in run.rows])) if run.rows else 0.0


def _vote(run: StoredRun, runs: Sequence[StoredRun]) -> StoredRun | None:
    """The plain majority of the same jurors."""
    return like(run, runs, review=False, chair=False, label=False, early_exit="never")


def _shown(several: Sequence[Heard]) -> Heard:
    """The run whose opinions are shown as methods of their own: those of the whole jury, if there are such."""
    given = {id(one): one.run.manifest.plan.parameters for one in several}
    usual = [one for one in several if given[id(one)]["roles"] is True and given[id(one)]["permute_choices"] is True]
    return max(usual or several, key=lambda one: len(one.rows))


def _order(run: StoredRun) -> tuple[int, int, str]:
    """Votes first, then the whole jury, then what lacks a part."""
    kind = 0 if is_majority(run) else 1 if is_whole(run) else 2
    return kind, jurors_count(run), method_of(run)
