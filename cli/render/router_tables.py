"""What a trained router is worth, as tables."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from ...evals.routing.policy_value import Difference
from ...evals.routing.question_training import AtRate, TrainedQuestionRouter
from ...evals.routing.training import TrainedAuto, Value
from ...routers.features import Line
from ...routers.features import EMBEDDING, Space
from ...routers.router_files import AutoFile, QuestionFile
from .console import out, printable


def print_auto(trained: TrainedAuto) -> None:
    """Print an auto-router: its arms, and what choosing is worth."""
    file = trained.file
    out().print(arms_table(file))
    for title, value in (("cross-validation", trained.crossed), ("kept back", trained.held)):
        if value is not None:
            out().print()
            out().print(Text(f"{title}, {value.questions} questions"))
            out().print(beside_table(file, value))
            out().print()
            out().print(price_table(file, value))


def print_question(trained: TrainedQuestionRouter) -> None:
    """Print a question-router: its signals, and what routing is worth."""
    file = trained.file
    out().print(
        Text(
            f"small model {100 * trained.right_small:.1f}% right, large model {100 * trained.right_large:.1f}%; "
            f"{100 * trained.needed:.1f}% of {file.trained.questions} questions need the large one"
        )
    )
    out().print(Text(printable(f"signals: {told_line(file.space, file.needed)}")))
    shown = [("cross-validation", file.trained.questions, trained.crossed)]
    shown += [("kept back", trained.held_questions, trained.held)] if trained.held else []
    for title, questions, rates in shown:
        out().print()
        out().print(Text(f"{title}, {questions} questions"))
        out().print(rate_table(rates))
    out().print()
    out().print(
        Text(
            f"rate {file.rate:g}: threshold {file.threshold:.4f}, which sends {100 * file.measured_rate:.1f}% of these "
            "questions to the large model"
        )
    )


def arms_table(file: AutoFile) -> Table:
    """The arms of a router."""
    table = _table("arm", "right", "tokens", "signals of right", "signals of tokens")
    for arm in file.arms:
        table.add_row(
            printable(arm.label),
            f"{100 * arm.share_right:.1f}%",
            f"{arm.mean_tokens:,.0f}",
            printable(told_line(file.space, arm.right)),
            printable(told_line(file.space, arm.tokens.line)),
        )
    return table


def beside_table(file: AutoFile, value: Value) -> Table:
    """`auto` beside every arm at equal average tokens, and in worth at the file's price."""
    table = _table(
        "arm",
        "right",
        "tokens",
        "auto there",
        "tokens",
        "auto less it [95%]",
        "auto less a lot [95%]",
        f"worth at {file.price:g} [95%]",
    )
    for one, worth in zip(value.beside, value.worth, strict=True):
        table.add_row(
            printable(file.arms[one.way].label),
            f"{100 * one.right:.1f}%",
            f"{one.cost:,.0f}",
            f"{100 * one.auto_right:.1f}%",
            f"{one.auto_cost:,.0f}" + ("" if one.reach == "equal" else f" ({one.reach})"),
            points(one.difference),
            points(one.over_lots),
            points(worth),
        )
    return table


def price_table(file: AutoFile, value: Value) -> Table:
    """`auto` by price: how often it is right, what it costs, and who gets the questions."""
    table = _table("price of 1000", "right", "tokens", "more than a lot [95%]", "arms")
    for at in value.prices:
        order = sorted(range(len(at.shares)), key=lambda way: -at.shares[way])
        got = [f"{file.arms[way].label} {100 * at.shares[way]:.0f}%" for way in order if at.shares[way] > 0]
        mark = " (chosen)" if at.price == file.price else ""
        table.add_row(
            f"{at.price:g}{mark}",
            f"{100 * at.right:.1f}%",
            f"{at.cost:,.0f}",
            points(at.over_lots),
            printable(", ".join(got)),
        )
    return table


def rate_table(rates: tuple[AtRate, ...]) -> Table:
    """Routing by rate, beside as many questions by lot."""
    table = _table("rate", "to the large", "right", "by lot", "more [95%]", "tokens large", "small")
    for at in rates:
        table.add_row(
            f"{at.rate:g}",
            f"{100 * at.measured_rate:.1f}%",
            f"{100 * at.right:.1f}%",
            f"{100 * at.by_lot:.1f}%",
            points(at.over_lot),
            f"{at.tokens_large:,.0f}",
            f"{at.tokens_small:,.0f}",
        )
    return table


def told_line(space: Space, line: Line, most: int = 3) -> str:
    """The largest weights of a line, each for one standard deviation of its signal."""
    if line.constant:
        return "none"
    weights = dict(zip(space.names if line.named else (), line.named, strict=False))
    if line.components:
        weights[EMBEDDING] = sum(w * w for w in line.components) ** 0.5
    largest = sorted(weights.items(), key=lambda pair: -abs(pair[1]))[:most]
    return ", ".join(
        f"{name} {weight:+.2f}" if name != EMBEDDING else f"{name} {weight:.2f}" for name, weight in largest
    )


def signals_line(file: AutoFile | QuestionFile) -> str:
    """What a router looks at."""
    space = file.space
    told = ", ".join(space.names)
    return told + (f"; {len(space.axes)} components of {space.embedding}" if space.axes else "")


def points(difference: Difference) -> str:
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
