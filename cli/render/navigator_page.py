"""A navigator on the terminal: its card, and what it chooses in states that a reader can make something of."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from ...reasoning.rlot.assessment import ASPECTS, State
from ...reasoning.rlot.blocks import LETTERS, NAMES, legal
from ...reasoning.rlot.navigator import Navigator, load_navigator
from .console import out, printable, write_json

STATES: dict[str, State] = {
    "the bare problem: nothing applies": (0, 0, 0, 0, 0, 0, 0),
    "all well, the answer is near": (3, 3, 3, 1, 1, 3, 3),
    "all well, the answer is far": (3, 3, 3, 3, 1, 1, 3),
    "all well, other ways exist": (3, 3, 3, 2, 3, 2, 3),
    "does not follow from the problem": (1, 2, 3, 2, 2, 2, 3),
    "not clear enough": (3, 1, 3, 2, 2, 2, 3),
    "a wrong calculation": (3, 3, 1, 2, 2, 2, 3),
    "something needed is not known": (3, 3, 3, 2, 2, 2, 1),
    "unsure of everything": (2, 2, 2, 2, 2, 2, 2),
}
"""States by what they mean; the scores are those of `ASPECTS`: 1 false, 2 unsure, 3 true, 0 does not apply."""


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
                "states": [choices(navigator, name, state, count) for name, state, count in rows],
            }
        )
        return
    out().print(card_table(navigator))
    out().print()
    out().print(state_table(navigator, rows))


def choices(navigator: Navigator, name: str, state: State, count: int | None) -> dict[str, Any]:
    """What a navigator does in a state: as the first block, and later."""
    most, mode = navigator.card.max_blocks, navigator.card.mask_mode
    return {
        "meaning": name,
        "state": list(state),
        "visits": count,
        "first": NAMES[navigator.choose(state, legal(0, most, mode))],
        "later": NAMES[navigator.choose(state, legal(1, most, mode))] if most > 1 else NAMES[-1],
        "q": dict(zip(NAMES, navigator.q(state), strict=True)),
    }


def common_states(navigator: Navigator) -> list[tuple[State, int]]:
    """The states that its training was in most often, with their number, as its card has them; empty without them."""
    noted = navigator.card.notes.get("common_states")
    found: list[tuple[State, int]] = []
    for entry in noted if isinstance(noted, list) else ():
        match entry:
            case [[int(a), int(b), int(c), int(d), int(e), int(f), int(g)], int(count)]:
                state: State = (a, b, c, d, e, f, g)
                if all(0 <= score <= 3 for score in state):
                    found.append((state, count))
    return found


def card_table(navigator: Navigator) -> Table:
    """The card, a line a fact; what is not known is left out."""
    card = navigator.card
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    facts: dict[str, object] = {
        "name": card.name,
        "weights": f"{navigator.network.parameters:,}, {navigator.digest}",
        "model": card.model,
        "engine": card.model_identity,
        "reward": card.reward + (f" by {card.reward_model}" if card.reward_model else ""),
        "datasets": ", ".join(card.datasets),
        "trained": f"{card.episodes:,} episodes, {card.steps:,} blocks, {card.problems:,} problems, seed {card.seed}"
        if card.episodes
        else "",
        "discount": f"{card.gamma:g}" if card.episodes else "",
        "chains": f"at most {card.max_blocks} blocks, {card.mask_mode}, refine {card.refine_mode}",
        "made": " by reason ".join(part for part in (card.created, card.version) if part),
    }
    for name, value in facts.items():
        if value:
            table.add_row(name, Text(printable(str(value))))
    for name, noted in _notes(navigator).items():
        table.add_row(name, Text(printable(noted)))
    return table


def state_table(navigator: Navigator, rows: list[tuple[str, State, int | None]]) -> Table:
    """What it chooses, with the values of all blocks."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(" ".join(ASPECTS))
    table.add_column("state", overflow="fold")
    table.add_column("first")
    table.add_column("later")
    for letter in LETTERS:
        table.add_column(letter, justify="right")
    for name, state, count in rows:
        told = choices(navigator, name, state, count)
        meaning = name or f"{count:,} times in training"
        table.add_row(
            "  ".join(map(str, state)),
            meaning,
            told["first"],
            told["later"],
            *(f"{told['q'][block]:.2f}" for block in NAMES),
        )
    return table


def _notes(navigator: Navigator) -> dict[str, str]:
    notes = navigator.card.notes
    found: dict[str, str] = {}
    last, checked = notes.get("last_episodes"), notes.get("validation")
    if isinstance(last, dict):
        found["at the end"] = (
            f"{_share(last.get('accuracy'))} right, return {_number(last.get('return'))}, "
            f"{_number(last.get('length'))} blocks"
        )
    if isinstance(checked, dict) and checked.get("problems"):
        found["held out"] = f"{checked.get('correct')} of {checked.get('problems')} right"
    missing = notes.get("missing_scores")
    if isinstance(missing, float):
        found["unread scores"] = _share(missing)
    return found


def _share(value: object) -> str:
    return f"{100 * value:.1f}%" if isinstance(value, int | float) else "?"


def _number(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else "?"
