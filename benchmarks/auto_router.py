"""`auto` next to every fixed strategy at equal average tokens.

    reason eval sweep sweep.toml --out runs/gsm8k
    python benchmarks/auto_router.py runs/gsm8k/* --holdout 0.5 --store runs/signals.sqlite3 > auto_router.md

Half of the questions, by a digest of their text, train the router; the table is of the other half, which neither the
fits nor the choice of their regularization use. No answer is generated: the runs have each strategy's answer and cost.
Intervals are percentile bootstraps over questions (or the datasets' own groups), paired.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from reason.core.settings import load_settings
from reason.evals.run_directory import load_runs
from reason.evals.training.routers.arm_table import ArmTable, arm_table
from reason.evals.training.routers.auto import PolicyValue, ScoreDifference, TrainedAuto, train_auto
from reason.evals.training.routers.fitting import QuestionSignals, compute_signals
from reason.routers.features import EMBEDDING, FeatureSpace, LinearModel
from reporting import made_here


def main() -> int:
    """Train on one part of the questions and print the table of the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of evaluation runs of the same questions")
    parser.add_argument("--holdout", type=float, default=0.5, help="share of the questions that the table is of")
    parser.add_argument("--price", type=float, default=0.1, help="of 1000 tokens, for the columns of worth and shares")
    parser.add_argument("--model", help="the main model, where the runs have several")
    parser.add_argument("--small-model", help="the small one likewise")
    parser.add_argument("--small-cost", type=float, default=1.0, help="what a token of the small model counts")
    parser.add_argument("--store", type=Path, help="run store in which the questions' signals are kept")
    parser.add_argument("--no-entropy", action="store_true", help="look at no model's first token")
    parser.add_argument("--seed", type=int, default=0, help="seed of folds and intervals")
    args = parser.parse_args()
    runs = load_runs([path for path in args.runs if (path / "run.json").exists()])
    table = arm_table(runs, main=args.model, small=args.small_model, small_cost=args.small_cost)
    name = table.models["main"]
    local = next(run.manifest.plan.local for run in runs if run.manifest.plan.models["main"] == name)
    settings = load_settings(model=name, store=args.store).model_copy(update={"local": local})
    gathered = asyncio.run(
        compute_signals(
            table.questions,
            settings,
            model=None if args.no_entropy else name,
            identity=table.engines["main"],
        )
    )
    trained = train_auto(table, gathered, price=args.price, holdout=args.holdout, seed=args.seed)
    print(report(table, gathered, trained))
    return 0


def report(table: ArmTable, gathered: QuestionSignals, trained: TrainedAuto) -> str:
    """The page."""
    file = trained.file
    models = ", ".join(f"{role} {name.rpartition('/')[2]}" for role, name in table.models.items())
    parts = [
        made_here(),
        f"{', '.join(table.datasets)}; {models}. {file.trained.questions} questions to train on, "
        f"{0 if trained.held is None else trained.held.questions} held out; seeds "
        f"{', '.join(map(str, table.seeds))}.",
        f"Signals: {', '.join(file.space.names)}"
        + (f"; {len(file.space.axes)} components of {file.space.embedding}." if file.space.axes else ".")
        + (f" No embedding: {gathered.missing}." if gathered.missing else ""),
        "## Arms",
        arms(trained),
    ]
    shown = [("Kept back", trained.held), ("Cross-validation on the training questions", trained.crossed)]
    for title, value in shown:
        if value is not None:
            parts += [
                f"## {title}, {value.questions} questions",
                comparison_table(trained, value),
                by_price(trained, value),
            ]
    return "\n\n".join(parts)


def arms(trained: TrainedAuto) -> str:
    """What each arm's lines rest on."""
    space = trained.file.space
    rows = [
        [
            arm.label,
            f"{100 * arm.share_right:.1f}",
            f"{arm.mean_tokens:,.0f}",
            rests_on(space, arm.right),
            rests_on(space, arm.tokens.line),
        ]
        for arm in trained.file.arms
    ]
    return markdown(["arm", "right % in training", "tokens", "right rests on", "tokens rest on"], rows, numbers=(1, 2))


def comparison_table(trained: TrainedAuto, value: PolicyValue) -> str:
    """`auto` next to each arm at the arm's average tokens."""
    price = trained.file.price
    rows = [
        [
            trained.file.arms[one.arm].label,
            f"{100 * one.right:.1f}",
            f"{one.cost:,.0f}",
            f"{100 * one.auto_right:.1f}",
            f"{one.auto_cost:,.0f}" + ("" if one.reach == "equal" else f" ({one.reach})"),
            points(one.difference),
            points(one.over_random),
            points(worth),
        ]
        for one, worth in zip(value.comparisons, value.worth, strict=True)
    ]
    head = [
        "fixed strategy",
        "right %",
        "tokens",
        "auto right %",
        "auto tokens",
        "auto less it [95 %]",
        "auto less the best mix of two [95 %]",
        f"worth at {price:g}, auto less it [95 %]",
    ]
    return markdown(head, rows, numbers=range(1, 8))


def by_price(trained: TrainedAuto, value: PolicyValue) -> str:
    """`auto` at several prices."""
    labels = [arm.label for arm in trained.file.arms]
    rows = [
        [
            f"{at.price:g}",
            f"{100 * at.right:.1f}",
            f"{at.cost:,.0f}",
            points(at.over_random),
            *(f"{100 * share:.0f}" for share in at.shares),
        ]
        for at in value.prices
    ]
    head = [
        "price of 1000 tokens",
        "right %",
        "tokens",
        "auto less the best mix of two [95 %]",
        *(f"{label} %" for label in labels),
    ]
    return markdown(head, rows, numbers=range(len(head)))


def rests_on(space: FeatureSpace, line: LinearModel, most: int = 3) -> str:
    """The largest weights of a line, each for one standard deviation."""
    if line.constant:
        return "nothing: the base rate"
    weights = dict(zip(space.names if line.named else (), line.named, strict=False))
    if line.components:
        weights[EMBEDDING] = sum(w * w for w in line.components) ** 0.5
    largest = sorted(weights.items(), key=lambda pair: -abs(pair[1]))[:most]
    return ", ".join(f"{name} {weight:+.2f}" for name, weight in largest)


def points(difference: ScoreDifference) -> str:
    """A difference in points with its interval."""
    span = difference.interval
    between = "" if span is None else f" [{100 * span.low:+.1f}, {100 * span.high:+.1f}]"
    return f"{100 * difference.value:+.1f}{between}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table; columns of numbers stand to the right."""
    marks = ["---:" if i in numbers else "---" for i in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, marks, *rows))


if __name__ == "__main__":
    sys.exit(main())
