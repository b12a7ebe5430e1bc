"""Trained routers: their arms and signals, their estimated value, and the page of a router file."""

from __future__ import annotations

import json
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ...evals.training.routers.auto import TrainedAuto
from ...evals.training.routers.policies import CurveArea, LoggedValue, PolicyValue, ScoreDifference
from ...evals.training.routers.question_router import RateOutcome, TrainedQuestionRouter
from ...evals.training.routers.stored_runs import ShadowReport
from ...routers.features import EMBEDDING, FeatureSpace, LinearModel
from ...routers.router_files import AutoRouterFile, QuestionRouterFile
from .console import out, printable


def print_auto(trained: TrainedAuto) -> None:
    """Print an auto-router: its arms, what it would have given on the runs, and the value of routing."""
    file = trained.file
    out().print(arms_table(file))
    out().print()
    out().print(Text(logged_text(trained.logged, file.price)))
    for title, value in (("cross-validation", trained.crossed), ("held out", trained.held)):
        if value is not None:
            out().print()
            out().print(Text(f"{title}, {value.questions} questions"))
            if value.area is not None:
                out().print(Text(area_text(value.area)))
            out().print(arm_comparison_table(file.price, value))
            out().print()
            out().print(price_table(file.price, value))


def logged_text(value: LoggedValue, price: float) -> str:
    """What choosing would have given, in a few lines."""
    share = value.saved.value / value.cost if value.cost else 0.0
    return (
        f"at a price of {price:g}, on {value.questions:,} questions with {value.runs:,} runs: "
        f"{100 * value.right:.1f}% right for {value.cost:,.0f} tokens as done; "
        f"{100 * value.auto_right:.1f}% for {value.auto_cost:,.0f} as chosen\n"
        f"saved {value.saved.value:,.0f} tokens a question ({100 * share:.0f}%){tokens_between(value.saved)}, "
        f"right {points(value.difference)} points; {100 * value.known:.0f}% of the choices were run, the others' "
        "outcomes are predicted without the question"
    )


def area_text(area: CurveArea) -> str:
    """The areas under the curves of quality over cost."""
    return (
        f"area under the curve of quality over tokens: auto {area.auto:.3f}, best arm {area.fixed:.3f}, random mixes "
        f"{area.mix:.3f}, oracle {area.oracle:.3f}; auto - best arm {points(area.over_fixed)} points, auto - random "
        f"mixes {points(area.over_mix)}"
    )


def print_shadow(report: ShadowReport) -> None:
    """Print the choices that shadow mode recorded, next to what was done."""
    table = _table("arm", "done", "chosen")
    for name in dict.fromkeys([*report.done, *report.choices]):
        table.add_row(printable(name), str(report.done.get(name, 0)), str(report.choices.get(name, 0)))
    out().print(table)
    out().print()
    share = report.saved.value / report.tokens if report.tokens else 0.0
    text = (
        f"{report.runs} runs, of which {100 * report.same:.0f}% did what auto would have chosen\n"
        f"tokens a run: {report.tokens:,.0f} as done, {report.expected_tokens:,.0f} expected of the choice; saved "
        f"{report.saved.value:,.0f} ({100 * share:.0f}%){tokens_between(report.saved)}"
    )
    if report.over_done is not None and report.right is not None and report.expected_right is not None:
        text += (
            f"\nright on {report.labelled} labelled runs: {100 * report.right:.1f}% as done, "
            f"{100 * report.expected_right:.1f}% expected of the choice, {points(report.over_done)} points"
        )
    out().print(Text(printable(text)))
    for why, count in report.failed.items():
        out().print(Text(printable(f"{count} runs without a choice: {why}")))


def print_question(trained: TrainedQuestionRouter) -> None:
    """Print a question-router: its signals, and the value of routing."""
    file = trained.file
    out().print(
        Text(
            f"small model {100 * trained.right_small:.1f}% right, large model {100 * trained.right_large:.1f}%; "
            f"{100 * trained.needed:.1f}% of {file.trained.questions} questions need the large one"
        )
    )
    out().print(Text(printable(f"signals: {weights_text(file.space, file.needed)}")))
    shown = [("cross-validation", file.trained.questions, trained.crossed)]
    shown += [("held out", trained.held_questions, trained.held)] if trained.held else []
    for title, questions, rates in shown:
        out().print()
        out().print(Text(f"{title}, {questions} questions"))
        out().print(rate_table(rates))
    out().print()
    out().print(
        Text(
            f"rate {file.rate:g}: threshold {file.threshold:.4f}, which routes {100 * file.measured_rate:.1f}% of "
            "these questions to the large model"
        )
    )


def arms_table(file: AutoRouterFile) -> Table:
    """The arms of a router."""
    table = _table("arm", "right", "tokens", "signals of accuracy", "signals of tokens")
    for arm in file.arms:
        table.add_row(
            printable(arm.label),
            f"{100 * arm.share_right:.1f}%",
            f"{arm.mean_tokens:,.0f}",
            printable(weights_text(file.space, arm.right)),
            printable(weights_text(file.space, arm.tokens.line)),
        )
    return table


def arm_comparison_table(price: float, value: PolicyValue) -> Table:
    """`auto` compared with every arm at equal average tokens, and by value at the file's price."""
    table = _table(
        "arm",
        "right",
        "tokens",
        "auto",
        "tokens",
        "auto - arm [95%]",
        "auto - random [95%]",
        f"value at {price:g} [95%]",
    )
    for one, worth in zip(value.comparisons, value.worth, strict=True):
        table.add_row(
            printable(value.labels[one.arm]),
            f"{100 * one.right:.1f}%",
            f"{one.cost:,.0f}",
            f"{100 * one.auto_right:.1f}%",
            f"{one.auto_cost:,.0f}" + ("" if one.reach == "equal" else f" ({one.reach})"),
            points(one.difference),
            points(one.over_random),
            points(worth),
        )
    return table


def price_table(price: float, value: PolicyValue) -> Table:
    """`auto` by price: accuracy, cost, and the arms of the questions."""
    table = _table("price of 1000", "right", "tokens", "auto - random [95%]", "arms")
    for at in value.prices:
        order = sorted(range(len(at.shares)), key=lambda arm: -at.shares[arm])
        got = [f"{value.labels[arm]} {100 * at.shares[arm]:.0f}%" for arm in order if at.shares[arm] > 0]
        mark = " (chosen)" if at.price == price else ""
        table.add_row(
            f"{at.price:g}{mark}",
            f"{100 * at.right:.1f}%",
            f"{at.cost:,.0f}",
            points(at.over_random),
            printable(", ".join(got)),
        )
    return table


def rate_table(rates: tuple[RateOutcome, ...]) -> Table:
    """Routing by rate, compared with routing as many questions at random."""
    table = _table("rate", "to the large", "right", "random", "difference [95%]", "tokens large", "small")
    for at in rates:
        table.add_row(
            f"{at.rate:g}",
            f"{100 * at.measured_rate:.1f}%",
            f"{100 * at.right:.1f}%",
            f"{100 * at.by_random:.1f}%",
            points(at.over_random),
            f"{at.tokens_large:,.0f}",
            f"{at.tokens_small:,.0f}",
        )
    return table


def weights_text(space: FeatureSpace, line: LinearModel, max_weights: int = 3) -> str:
    """The largest weights of a linear model, each for one standard deviation of its signal."""
    if line.constant:
        return "none"
    weights = dict(zip(space.names if line.named else (), line.named, strict=False))
    if line.components:
        weights[EMBEDDING] = sum(w * w for w in line.components) ** 0.5
    largest = sorted(weights.items(), key=lambda pair: -abs(pair[1]))[:max_weights]
    return ", ".join(
        f"{name} {weight:+.2f}" if name != EMBEDDING else f"{name} {weight:.2f}" for name, weight in largest
    )


def signal_names(file: AutoRouterFile | QuestionRouterFile) -> str:
    """The signals of a router."""
    space = file.space
    names = ", ".join(space.names)
    return names + (f"; {len(space.axes)} components of {space.embedding}" if space.axes else "")


def tokens_between(difference: ScoreDifference) -> str:
    """The interval of a difference in tokens."""
    span = difference.interval
    return "" if span is None else f" [{span.low:,.0f}, {span.high:,.0f}]"


def points(difference: ScoreDifference) -> str:
    """A difference in points with its interval."""
    span = difference.interval
    between = "" if span is None else f" [{100 * span.low:+.1f}, {100 * span.high:+.1f}]"
    return f"{100 * difference.value:+.1f}{between}"


def _table(first: str, *rest: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    for name in rest:
        table.add_column(name, justify="left" if name.startswith(("signals", "arms")) else "right", overflow="fold")
    return table


def kind_of(file: str) -> str | None:
    """The `kind` of a JSON file; None if it is no JSON object, or has none."""
    try:
        plain = json.loads(Path(file).expanduser().read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    kind = plain.get("kind") if isinstance(plain, dict) else None
    return kind if isinstance(kind, str) else None


def show_router(file: str, *, as_json: bool) -> bool:
    """Print a router if the file holds one; returns whether it does.

    Raises:
        DataError: The router file is damaged.
    """
    from ...routers.router_files import AUTO_KIND, QUESTION_KIND, load_auto_router_file, load_question_router_file
    from .console import write_json

    kind, path = kind_of(file), Path(file).expanduser()
    if kind not in (AUTO_KIND, QUESTION_KIND):
        return False
    file_: AutoRouterFile | QuestionRouterFile = (
        load_auto_router_file(path) if kind == AUTO_KIND else load_question_router_file(path)
    )
    if as_json:
        write_json({**file_.model_dump(mode="json"), "digest": file_.digest})
        return True
    out().print(_facts(file_))
    out().print()
    if isinstance(file_, AutoRouterFile):
        out().print(arms_table(file_))
    else:
        out().print(
            Text(printable(f"signals of needing the large model: {weights_text(file_.space, file_.needed, 8)}"))
        )
    return True


def _facts(file: AutoRouterFile | QuestionRouterFile) -> Table:
    trained = file.trained
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    facts = {"router": f"{file.kind}, {file.digest}"}
    facts |= {f"{role} model": name for role, name in trained.models.items()}
    facts |= {f"{role} engine": name for role, name in trained.engines.items()}
    facts |= {
        "runs": ", ".join(trained.runs),
        "datasets": ", ".join(trained.datasets),
        "questions": f"{trained.questions:,}"
        + (f", {100 * trained.held_out:.0f}% held out" if trained.held_out else ""),
        "signals": signal_names(file),
    }
    if isinstance(file, AutoRouterFile):
        facts["price"] = f"{file.price:g} for 1000 tokens"
    else:
        facts["rate"] = f"{file.rate:g}: threshold {file.threshold:.4f}, routes {100 * file.measured_rate:.1f}%"
        facts["small model answers by"] = f"{file.small.strategy}, {100 * file.small.share_right:.1f}% right"
        facts["large model answers by"] = f"{file.large.strategy}, {100 * file.large.share_right:.1f}% right"
    facts["created"] = f"{trained.made} by reason {trained.version}"
    for name, value in facts.items():
        table.add_row(name, Text(printable(value)))
    return table
