"""A navigator on the terminal: its card, and its choices in typical and in frequent states."""

from __future__ import annotations

from typing import Any

from ...reasoning.rlot.assessment import ASPECTS, State
from ...reasoning.rlot.blocks import LETTERS, NAMES, legal_blocks
from ...reasoning.rlot.navigator import PARAMETERS, Navigator, load_navigator
from .console import out, plain_table, printable, write_json

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
    records = [state_record(navigator, name, state, None) for name, state in STATES.items()]
    records += [state_record(navigator, "", state, count) for state, count in common_states(navigator)]
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
    table = plain_table("", "")
    table.show_header = False
    for name, value in facts.items():
        if value.strip():
            table.add_row(name, printable(value.strip()))
    out().print(table)
    out().print()
    table = plain_table(" ".join(ASPECTS), "state", "first", "later", *LETTERS, right="|".join(LETTERS))
    for one in records:
        meaning = one["meaning"] or f"{one['visits']:,} times in training"
        values = (f"{one['q'][block]:.2f}" for block in NAMES)
        table.add_row("  ".join(map(str, one["state"])), meaning, one["first"], one["later"], *values)
    out().print(table)


def state_record(navigator: Navigator, name: str, state: State, count: int | None) -> dict[str, Any]:
    """The choices of a navigator in a state, for the first block and for later ones."""
    max_blocks, parity = navigator.card.max_blocks, navigator.card.parity
    return {
        "meaning": name,
        "state": list(state),
        "visits": count,
        "first": NAMES[navigator.choose(state, legal_blocks(0, max_blocks, parity))],
        "later": NAMES[navigator.choose(state, legal_blocks(1, max_blocks, parity))] if max_blocks > 1 else NAMES[-1],
        "q": dict(zip(NAMES, navigator.q(state), strict=True)),
    }


def common_states(navigator: Navigator) -> list[tuple[State, int]]:
    """The most frequent states of the training with their counts, from the card; empty if the card has none."""
    entries = navigator.card.notes.get("common_states")
    states: list[tuple[State, int]] = []
    for entry in entries if isinstance(entries, list) else ():
        match entry:
            case [[int(a), int(b), int(c), int(d), int(e), int(f), int(g)], int(count)]:
                state: State = (a, b, c, d, e, f, g)
                if all(0 <= score <= 3 for score in state):
                    states.append((state, count))
    return states
