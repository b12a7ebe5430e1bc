"""A navigator on the terminal: its card, and its choices in typical and in frequent states."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from ...reasoning.rlot.assessment import ASPECTS, State
from ...reasoning.rlot.blocks import LETTERS, NAMES, legal_blocks
from ...reasoning.rlot.navigator import PARAMETERS, Navigator, load_navigator
from .console import out, printable, write_json

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
    rows: list[tuple[str, State, int | None]] = [(name, state, None) for name, state in STATES.items()]
    rows += [("", state, count) for state, count in common_states(navigator)]
    if as_json:
        write_json(
            {
                "card": navigator.card.model_dump(mode="json"),
                "digest": navigator.digest,
                "aspects": list(ASPECTS),
                "blocks": list(NAMES),
                "states": [state_record(navigator, name, state, count) for name, state, count in rows],
            }
        )
        return
    out().print(card_table(navigator))
    out().print()
    out().print(state_table(navigator, rows))


def state_record(navigator: Navigator, name: str, state: State, count: int | None) -> dict[str, Any]:
    """The choices of a navigator in a state, for the first block and for later ones."""
    max_blocks, mode = navigator.card.max_blocks, navigator.card.mask_mode
    return {
        "meaning": name,
        "state": list(state),
        "visits": count,
        "first": NAMES[navigator.choose(state, legal_blocks(0, max_blocks, mode))],
        "later": NAMES[navigator.choose(state, legal_blocks(1, max_blocks, mode))] if max_blocks > 1 else NAMES[-1],
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


def card_table(navigator: Navigator) -> Table:
    """The card, one line per known fact."""
    card = navigator.card
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    facts: dict[str, object] = {
        "name": card.name,
        "weights": f"{PARAMETERS:,}, {navigator.digest}",
        "model": card.model,
        "engine": card.model_identity,
        "reward": card.reward + (f" by {card.reward_model}" if card.reward_model else ""),
        "datasets": ", ".join(card.datasets),
        "trained": f"{card.episodes:,} episodes, {card.steps:,} blocks, {card.problems:,} problems, seed {card.seed}"
        if card.episodes
        else "",
        "discount": f"{card.gamma:g}" if card.episodes else "",
        "chains": f"up to {card.max_blocks} blocks, {card.mask_mode}, refine {card.refine_mode}",
        "created": " by reason ".join(part for part in (card.created, card.version) if part),
    }
    for name, value in facts.items():
        if value:
            table.add_row(name, Text(printable(str(value))))
    for name, note in _notes(navigator).items():
        table.add_row(name, Text(printable(note)))
    return table


def state_table(navigator: Navigator, rows: list[tuple[str, State, int | None]]) -> Table:
    """The choices in each state, with the values of all blocks."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(" ".join(ASPECTS))
    table.add_column("state", overflow="fold")
    table.add_column("first")
    table.add_column("later")
    for letter in LETTERS:
        table.add_column(letter, justify="right")
    for name, state, count in rows:
        record = state_record(navigator, name, state, count)
        meaning = name or f"{count:,} times in training"
        table.add_row(
            "  ".join(map(str, state)),
            meaning,
            record["first"],
            record["later"],
            *(f"{record['q'][block]:.2f}" for block in NAMES),
        )
    return table


def _notes(navigator: Navigator) -> dict[str, str]:
    notes = navigator.card.notes
    facts: dict[str, str] = {}
    last, checked = notes.get("last_episodes"), notes.get("validation")
    if isinstance(last, dict):
        facts["last episodes"] = (
            f"{_share(last.get('accuracy'))} right, return {_number(last.get('return'))}, "
            f"{_number(last.get('length'))} blocks"
        )
    if isinstance(checked, dict) and checked.get("problems"):
        facts["held out"] = f"{checked.get('correct')} of {checked.get('problems')} right"
    missing = notes.get("missing_scores")
    if isinstance(missing, float):
        facts["unparsed scores"] = _share(missing)
    return facts


def _share(value: object) -> str:
    return f"{100 * value:.1f}%" if isinstance(value, int | float) else "?"


def _number(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else "?"
