r"""Is a jury with reviews and a chair better than its best juror, a vote, and self-consistency? On TruthfulQA's MC1.

    python benchmarks/edgejury_table.py plan --jurors A B C --one-model B --data FILE --limit 100 --out plans
    for name in jury single ablations one-model; do
        reason eval sweep plans/$name.toml --out runs/$name --store runs/store.sqlite3 --concurrency 32
    done
    reason eval sweep plans/timed.toml --out runs/timed --concurrency 1 --reuse none
    python benchmarks/edgejury_table.py table runs/jury runs/single runs/ablations runs/one-model \
        --timed runs/timed --plans plans > table.md

The last juror is the chair, and the model of self-consistency, unless `--chair` and `--best` say otherwise. A sweep
that was stopped goes on with `--resume`; the table says what is missing.

Equal requests are made once: all sweeps have one run store, and a sweep's `--reuse` is `store` unless it is told
otherwise. A reply is found again by model, prompt, sampling, seed of the question and number of the sample, whatever
method asks. So the vote, the jury that leaves early, all rules of ranking without a chair, self-consistency with fewer
samples and the best model's one sample cost nothing; the jury without reviews or with another rule pays for its chair
alone (for that only where the order changes), without anonymity or shuffling for reviews and chair, without roles or
permuted options for everything. "Written anew" is what a run had to pay itself. Every method is charged all that it
would have cost alone.

Seconds are taken only of runs that were asked one question at a time, with nothing from the run store (`--timed`).

Every method gets the same rows: options in the data's fixed order, which does not put the right one first; right is
the one letter at the end, and no letter is wrong. Chains get the same words as jurors without a role (`--step-by-step`
leaves them their own), and as many tokens. Jurors are asked once more for their letter where they state none (`--set
conclude=false` drops that), which chains are not: so each juror is shown as a method of its own as well.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from edgejury_biases import debiased, errors_table, final_places, juror_places, marks_table, places_table
from edgejury_cells import (
    EVERYTHING,
    MAJORITY,
    ONE_ORDER,
    has_names,
    is_majority,
    is_whole,
    like,
    names_of,
    others_of,
    short,
)
from edgejury_missing import missing_lines
from edgejury_rows import Jury, costs_table, juries_of, likelihood_table, one_model_table, right_table, went_table
from edgejury_sittings import JURY, Heard, hear, jurors_count
from edgejury_sweeps import add_plan, sweep_files
from edgejury_trust import confidence_table, exits_table, labels_table, stages_table
from machine import made_here
from reason.core.errors import UserError
from reason.core.model_roles import jurors_of
from reason.evals.comparison import StoredRun, load_run

RIGHT = """\
Differences are in points, over the rows of both, with a bootstrap interval over questions and McNemar's exact p. The
best single one is chosen by hindsight on these very rows, among models alone and jurors alone, which favours it. At
its tokens: self-consistency is interpolated between its numbers of samples; a token counts the same whatever model
wrote it."""
COSTS = """\
Means a question, as if nothing had been in the run store; "written anew" is what was not. What a juror alone read,
and its calls, are not known apart from the others'."""
WENT = """\
A review is read if its marks could be, after one request for repair; the chair's answer likewise, else the best
ranked opinion stands. Overruled: the jury's vote took the place of the chair's letter."""
PLACES = """\
Chance is what it would be if right options stand in random places. Of jurors it is the bias of the models; of
answers, what is left of it. Distance is total variation, above 0 by chance too."""
MARKS = """\
B is the share of the other texts of the review that a text is marked above, so 0.50 at every place without a bias.
Where answers are not shuffled, place and juror go together, and a slope is no bias."""
ERRORS = "Wrong is any letter but the right one, or none. A vote wants a correlation of 0; 1 is one juror twice."
TRUST = """\
Confidence of a jury is its agreement on the answer, of a vote and of self-consistency the share of the votes. On
multiple choice an answer is one claim, "the answer is X", and its label says how many jurors chose X. So the
precision of "contradicted" is measured for answers: the share of them that is wrong. For claims within a text it
cannot be measured here, since no data says which are true."""

LIKELIHOOD = """\
The benchmark's own MC1: the option of the highest log-probability. Another test than naming a letter, so beside it."""


def main() -> int:
    """Write the sweeps, or print the tables of those that were run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    add_plan(commands.add_parser("plan", help="write the sweeps"))
    printed = commands.add_parser("table", help="print the tables")
    printed.add_argument("runs", type=Path, nargs="+", help="folders that `reason eval sweep` wrote")
    printed.add_argument("--timed", type=Path, nargs="*", default=[], help="those asked one question at a time")
    printed.add_argument("--plans", type=Path, help="folder of the sweeps, to tell what was not begun")
    printed.add_argument("--store", type=Path, help="the run store, where it is not where the runs say")
    given = parser.parse_args()
    if given.command == "plan":
        for path, text in sweep_files(given).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(path)
        return 0
    runs, timed = load(given.runs), load(given.timed)
    if not runs:
        raise SystemExit("none of these folders holds a run with a row")
    heard = asyncio.run(hear(runs, given.store))
    clocked = asyncio.run(hear(timed))
    print(report(heard, clocked, missing_lines([*runs, *timed], given.plans)))
    return 0


def load(folders: Sequence[Path]) -> list[StoredRun]:
    """The runs in some folders that have rows."""
    found = []
    for path in [p for folder in folders for p in sorted(folder.iterdir()) if (p / "run.json").exists()]:
        try:
            found.append(load_run(path))
        except UserError:  # it has no row yet, which `missing_lines` tells if the plans are given
            print(f"{path}: no row yet", file=sys.stderr)
    return found


def report(heard: Sequence[Heard], timed: Sequence[Heard], missing: Sequence[str]) -> str:
    """All tables of each dataset, in the order of their names, and what is missing."""
    by_dataset: dict[tuple[str, str], list[Heard]] = {}
    for one in heard:
        use = one.run.manifest.plan.dataset
        by_dataset.setdefault((use.whole_name, use.fingerprint), []).append(one)
    parts = [made_here()]
    for (name, fingerprint), several in sorted(by_dataset.items(), key=lambda pair: pair[0]):
        clocked = [one for one in timed if one.run.manifest.plan.dataset.fingerprint == fingerprint]
        parts += dataset_parts(name, several, clocked)
    unfinished = "\n".join(f"- {line}" for line in missing) or "Everything that was begun is finished."
    return "\n\n".join([*parts, "## Not finished", unfinished])


def dataset_parts(name: str, heard: Sequence[Heard], timed: Sequence[Heard]) -> list[str]:
    """The tables of one dataset."""
    parts: list[str] = []
    for jury in juries_of(heard):
        plan = jury.sat[0][1].run.manifest.plan
        jurors = ", ".join(map(short, jurors_of(plan.models)))
        chair = short(plan.models.get("chair", plan.models["main"]))
        seeds = ", ".join(map(str, plan.seeds))
        given = plan.parameters
        limits = (
            f"Opinions have at most {given['answer_tokens']} tokens, reviews {given['review_tokens']}, the chair's "
            f"answer {given['chair_tokens']}; reviews and chair write {given['form']}."
        )
        more = "".join(f" {key} = {value}." for key, value in others_of(jury.sat[0][1].run).items())
        parts += [f"## {name}: {jurors}; chair {chair}", f"Seeds: {seeds}. {limits}{more}"]
        parts += jury_parts(jury, timed)
    chains = [one.run for one in heard if one.run.manifest.plan.strategy == "cot"]
    one_model = [one for one in heard if one.run.manifest.plan.strategy == JURY and not has_names(one.run)]
    if one_model:
        ordered = sorted(one_model, key=lambda one: (jurors_count(one.run), is_majority(one.run)))
        parts += [f"## {name}: one model in several roles", one_model_table(ordered, chains)]
    likelihood = [one.run for one in heard if one.run.manifest.plan.strategy == "logprob"]
    if likelihood:
        parts += [f"## {name}: by log-probability", LIKELIHOOD, likelihood_table(likelihood)]
    return parts


def jury_parts(jury: Jury, timed: Sequence[Heard]) -> list[str]:
    """The tables of one jury."""
    runs = [heard.run for _, heard in jury.sat]
    by_run = {id(heard.run): heard for _, heard in jury.sat}
    whole = [(name, heard) for name, heard in jury.sat if heard.run.manifest.plan.parameters["review"]]
    parts = ["### Right answers", RIGHT, right_table(jury)]
    parts += ["### Costs", COSTS, costs_table(jury, [one.run for one in timed])]
    parts += ["### How it went", WENT, went_table(jury.sat)]
    pairs = [
        (name, heard, by_run[id(staying)])
        for name, heard in jury.sat
        if heard.run.manifest.plan.parameters["early_exit"] == "closed"
        and (staying := like(heard.run, runs, early_exit="never")) is not None
    ]
    if pairs:
        parts += ["### Leaving early", exits_table(pairs)]
    parts += ["### Stages", stages_table(whole[:1], timed=False)] if whole else []
    sat = [one for one in timed if one.run.manifest.plan.strategy == JURY]
    clocked = list(zip(names_of([one.run for one in sat]), sat, strict=True))
    if clocked:
        parts += ["Of the questions that were asked one at a time:", stages_table(clocked, timed=True)]
    parts += ["### Places of the chosen options", PLACES, *places_parts(jury)]
    if whole:
        parts += ["### Marks by the place of the text", MARKS, marks_table(reviewed(whole))]
    parts += ["### Errors in common", ERRORS, errors_table(distinct_opinions(jury))]
    told = [(name, heard) for name, heard in jury.sat if is_whole(heard.run)]
    votes = [(name, heard) for name, heard in jury.sat if name == MAJORITY]
    stated = [*jury.sampled, *((name, heard.run) for name, heard in [*votes, *told])]
    return [*parts, "### Confidence", TRUST, confidence_table(stated), labels_table(told)]


def places_parts(jury: Jury) -> list[str]:
    """Where chosen options stand: of jurors, of juries with and without permuted options, of the models alone."""
    jurors = []
    for name, heard in distinct_opinions(jury):
        for i in sorted({o.juror for _, sitting in heard.sat for o in sitting.opinions}):
            model = next(o.model for _, sitting in heard.sat for o in sitting.opinions if o.juror == i)
            jurors.append((f"{name}: juror {i + 1} ({short(model)})", juror_places(heard, i)))
    finals = [(name, final_places(run)) for name, run in [*jury.chains, *jury.sampled[-1:]]]
    shown = [(name, heard) for name, heard in jury.sat if name.removesuffix(f", {ONE_ORDER}") in (MAJORITY, EVERYTHING)]
    finals += [(name, final_places(heard.run)) for name, heard in shown]
    parts = [places_table(jurors, finals)]
    runs = [heard.run for _, heard in shown]
    for name, heard in shown:
        other = None if name.endswith(ONE_ORDER) else like(heard.run, runs, permute_choices=False)
        if other is not None:
            apart = debiased(final_places(heard.run), final_places(other))
            parts.append(f"{name}: first options beyond chance, with permuted options less without: {apart}.")
    return parts


def reviewed(several: Sequence[tuple[str, Heard]]) -> list[tuple[str, Heard]]:
    """Of juries whose reviews are the same requests, one; those that leave early have part of another's."""
    staying = [(n, h) for n, h in several if h.run.manifest.plan.parameters["early_exit"] == "never"]
    differs = ("roles", "permute_choices", "shuffle", "anonymise", "exclude_self")
    return _first_of_each([*staying, *several], differs)


def distinct_opinions(jury: Jury) -> list[tuple[str, Heard]]:
    """Of runs whose opinions are the same requests, one: the vote, where there is one."""
    votes = [(name, heard) for name, heard in jury.sat if name.startswith(MAJORITY)]
    return _first_of_each([*votes, *jury.sat], ("roles", "permute_choices"))


def _first_of_each(several: Sequence[tuple[str, Heard]], names: Sequence[str]) -> list[tuple[str, Heard]]:
    found: dict[str, tuple[str, Heard]] = {}
    for name, heard in several:
        given = heard.run.manifest.plan.parameters
        found.setdefault(str([given[n] for n in names]), (name, heard))
    return list(found.values())


if __name__ == "__main__":
    sys.exit(main())
