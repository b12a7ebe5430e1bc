"""Trained files on the terminal: a router's arms and the value of routing, a navigator's card and its choices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from auto_training import TrainedAuto
from policies import PolicyValue, ScoreDifference
from reason.cli.render.console import out, plain_table, print_facts, printable, write_json
from reason.reasoning.rlot.assessment import ASPECTS, State
from reason.reasoning.rlot.blocks import LETTERS, NAMES, legal_blocks
from reason.reasoning.rlot.navigator import PARAMETERS, load_navigator
from reason.routers.features import EMBEDDING, FeatureSpace, LinearModel
from reason.routers.router_files import AUTO_KIND, AutoRouterFile, load_auto_router_file
from rich.table import Table


def print_auto(trained: TrainedAuto) -> None:
    """Print a router: its arms, and the value of routing."""
    file = trained.file
    out().print(arms_table(file))
    for title, value in (("cross-validation", trained.crossed), ("held out", trained.held)):
        if value is not None:
            out().print(f"\n{title}, {value.questions} questions")
            out().print(arm_comparison_table(file.price, value))
            out().print()
            out().print(price_table(file.price, value))


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
    table = _table("arm", "right", "tokens", "auto", "auto's tokens", "auto - arm [95%]", "auto - random [95%]",
                   f"value at {price:g} [95%]")  # fmt: skip
    for one, worth in zip(value.comparisons, value.worth, strict=True):
        table.add_row(
            printable(value.labels[one.arm]),
            f"{100 * one.right:.1f}%",
            f"{one.cost:,.0f}",
            f"{100 * one.auto_right:.1f}%",
            f"{one.auto_cost:,.0f}" + ("" if one.reach == "equal" else f" ({one.reach})"),
            *map(points, (one.difference, one.over_random, worth)),
        )
    return table


def price_table(price: float, value: PolicyValue) -> Table:
    """`auto` by price: accuracy, cost, and the arms of the questions."""
    table = _table("price of 1000", "right", "tokens", "auto - random [95%]", "arms")
    for at in value.prices:
        order = sorted(range(len(at.shares)), key=lambda arm: -at.shares[arm])
        table.add_row(
            f"{at.price:g}{' (chosen)' if at.price == price else ''}",
            f"{100 * at.right:.1f}%",
            f"{at.cost:,.0f}",
            points(at.over_random),
            printable(", ".join(f"{value.labels[a]} {100 * at.shares[a]:.0f}%" for a in order if at.shares[a] > 0)),
        )
    return table


def weights_text(space: FeatureSpace, line: LinearModel, max_weights: int = 3) -> str:
    """The largest weights of a linear model, each for one standard deviation of its signal."""
    weights = dict(zip(space.names if line.named else (), line.named, strict=False))
    if line.components:
        weights[EMBEDDING] = sum(w * w for w in line.components) ** 0.5
    largest = sorted(weights.items(), key=lambda pair: -abs(pair[1]))[:max_weights]
    return ", ".join(f"{name} {weight:+.2f}" for name, weight in largest if weight) or "none"


def points(difference: ScoreDifference) -> str:
    """A difference in points with its interval."""
    span = difference.interval
    between = "" if span is None else f" [{100 * span.low:+.1f}, {100 * span.high:+.1f}]"
    return f"{100 * difference.value:+.1f}{between}"


def _table(first: str, *rest: str) -> Table:
    table = plain_table(first, *rest, right="|".join(n for n in rest if not n.startswith(("signals", "arms"))))
    table.columns[0].no_wrap = False
    return table


def show_router(name: str, *, as_json: bool) -> bool:
    """Print a router if the file holds one; returns whether it does.

    Raises:
        DataError: The router file is damaged.
    """
    path = Path(name).expanduser()
    try:
        plain = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(plain, dict) or plain.get("kind") != AUTO_KIND:
        return False
    file = load_auto_router_file(path)
    if as_json:
        write_json({**file.model_dump(mode="json"), "digest": file.digest})
        return True
    trained, space = file.trained, file.space
    facts = {"router": f"{file.kind}, {file.digest}"}
    facts |= {f"{role} model": f"{name}, {trained.engines.get(role, '')}" for role, name in trained.models.items()}
    facts |= {
        "runs": ", ".join(trained.runs),
        "datasets": ", ".join(trained.datasets),
        "questions": f"{trained.questions:,}"
        + (f", {100 * trained.held_out:.0f}% held out" if trained.held_out else ""),
        "signals": ", ".join(space.names)
        + (f"; {len(space.axes)} components of {space.embedding}" if space.axes else ""),
        "price": f"{file.price:g} for 1000 tokens",
        "created": f"{trained.made} by reason {trained.version}",
    }
    print_facts(facts)
    out().print()
    out().print(arms_table(file))
    return True


STATES: dict[str, State] = {
    "the bare problem: nothing applies": (0, 0, 0, 0, 0, 0, 0),
    "all good, close to the answer": (3, 3, 3, 1, 1, 3, 3),
    "all good, far from the answer": (3, 3, 3, 3, 1, 1, 3),
    "all good, alternatives exist": (3, 3, 3, 2, 3, 2, 3),
    "does not follow from the problem": (1, 2, 3, 2, 2, 2, 3),
    "not clear enough": (3, 1, 3, 2, 2, 2, 3),
    "a calculation error": (3, 3, 1, 2, 2, 2, 3),
    "missing knowledge": (3, 3, 3, 2, 2, 2, 1),
    "unsure of everything": (2, 2, 2, 2, 2, 2, 2),
}
"""Typical states by meaning; scores in the order of `ASPECTS`: 1 false, 2 unsure, 3 true, 0 not applicable."""


def show_navigator(file: str, *, as_json: bool) -> None:
    """Print a navigator.

    Raises:
        DataError: The file holds no navigator.
    """
    navigator = load_navigator(file)
    card = navigator.card
    first, later = (legal_blocks(i, card.max_blocks, card.parity) for i in (0, 1))
    records: list[dict[str, Any]] = [
        {
            "meaning": meaning,
            "state": list(state),
            "first": NAMES[navigator.choose(state, first)],
            "later": NAMES[navigator.choose(state, later)],
            "q": dict(zip(NAMES, navigator.q(state), strict=True)),
        }
        for meaning, state in STATES.items()
    ]
    if as_json:
        plain: dict[str, Any] = {"card": card.model_dump(mode="json"), "digest": navigator.digest}
        write_json({**plain, "aspects": list(ASPECTS), "blocks": list(NAMES), "states": records})
        return
    facts = {
        "name": card.name,
        "weights": f"{PARAMETERS:,}, {navigator.digest}",
        "model": f"{card.model} {card.model_identity}",
        "reward": f"{card.reward} {card.reward_model}",
        "datasets": ", ".join(card.datasets),
        "trained": f"{card.episodes:,} episodes, {card.steps:,} blocks, {card.problems:,} problems, seed {card.seed}, "
        f"discount {card.gamma:g}"
        if card.episodes
        else "",
        "chains": f"up to {card.max_blocks} blocks, parity {card.parity}",
        "created": " by reason ".join(part for part in (card.created, card.version) if part),
    }
    print_facts(facts)
    out().print()
    table = plain_table(" ".join(ASPECTS), "state", "first", "later", *LETTERS, right="|".join(LETTERS))
    for one in records:
        values = (f"{one['q'][block]:.2f}" for block in NAMES)
        table.add_row("  ".join(map(str, one["state"])), one["meaning"], one["first"], one["later"], *values)
    out().print(table)
