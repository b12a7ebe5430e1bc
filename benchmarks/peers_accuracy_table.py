"""Answers and calls of `peers_accuracy` as rows, and rows as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peers_accuracy import calls_file
from peers_methods import ALL, METHODS, OURS, Cell, peer_named
from reason.core.question import Question
from reason.evals.items import Item, MathGold
from reason.evals.scoring.mathematics import compare_with_gold, is_same
from reason.evals.statistics.equal_tokens import Curve, accuracy_at, difference_at, shared_tokens
from reason.evals.statistics.outcomes import Outcomes
from reason.evals.statistics.paired import compare
from reason.reasoning.answers import extract
from reason.reasoning.equivalence import Equivalence
from sidecar_load_table import table
from sweep_text import share


@dataclass(frozen=True)
class Row:
    """One question of a cell.

    Attributes:
        id: Its name.
        right: Whether the answer is.
        failed: Whether there is none because the peer raised an error.
        tokens: Generated tokens, those of judges included.
        prompt: Tokens of prompts.
        calls: Calls of the model. Where these are calls of which nobody can tell whose they are, an even share.
        seconds: From question to answer, beside the other questions under way.
    """

    id: str
    right: bool
    failed: bool
    tokens: float
    prompt: float
    calls: float
    seconds: float


Measured = Mapping[Cell, Sequence[Row]]


def costs(calls: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int, int]]:
    """By question the generated tokens, the prompts' and the number of calls.

    Under the name "" stands what no question is named in once the first one is under way: prompts that are sent as
    numbers of tokens. What a client asks when it is opened, before that, is no question's.
    """
    spent: dict[str, tuple[int, int, int]] = {}
    for call in calls:
        if call["item"] or spent:
            a, b, c = spent.get(call["item"], (0, 0, 0))
            spent[call["item"]] = (a + call["completion"], b + call["prompt"], c + 1)
    return spent


async def rows_of(
    items: Sequence[Item], answers: Sequence[Mapping[str, Any]], calls: Sequence[Mapping[str, Any]], same: Equivalence
) -> list[Row]:
    """Score a cell's answers: ours reads the number out of every text, and compares."""
    spent, told = costs(calls), {line["id"]: line for line in answers if "id" in line}
    rows = []
    for item in items:
        if item.id not in told or not isinstance(item.gold, MathGold):
            continue
        line = told[item.id]
        found = extract(line["text"], Question(text=item.question.text, kind=item.gold.kind))
        right = is_same(await compare_with_gold(None if found is None else found.value, item.gold, same))
        own, shared = spent.get(item.id, (0, 0, 0)), spent.get("", (0, 0, 0))
        tokens, prompt, count = (mine + ours / len(items) for mine, ours in zip(own, shared, strict=True))
        rows.append(Row(item.id, right, bool(line["error"]), tokens, prompt, count, line["seconds"]))
    return rows


async def read_cell(folder: Path, cell: Cell, items: Sequence[Item], same: Equivalence) -> list[Row] | None:
    """A cell's rows; None if it was not run."""
    answers = folder / cell.file
    if not answers.exists():
        return None
    return await rows_of(items, _lines(answers), _lines(calls_file(answers)), same)


def accuracy_table(measured: Measured) -> str:
    """A row for each cell; a peer's is compared, question by question, with ours of the same method and size."""
    head = ["method", "by", "its name for it", "size", "accuracy % [95 %]", "generated tokens a question"]
    head += ["prompt tokens", "calls", "median s", "failed", "less ours, points [95 %]", "won, lost", "p"]
    lines = []
    for cell, rows in measured.items():
        ours = measured.get(beside(cell)) if cell.peer != OURS else None
        line = [cell.method, cell.peer, peer_named(cell.peer).offers[cell.method], str(cell.size)]
        line += [share([float(row.right) for row in rows])]
        line += [f"{np.mean([row.tokens for row in rows]):,.0f}", f"{np.mean([row.prompt for row in rows]):,.0f}"]
        line += [f"{np.mean([row.calls for row in rows]):.1f}", f"{np.median([row.seconds for row in rows]):.1f}"]
        line += [str(sum(row.failed for row in rows))]
        lines.append(line + (["", "", ""] if ours is None else list(_against(rows, ours))))
    return table(head, lines)


def beside(cell: Cell) -> Cell:
    """The cell of ours that a peer's is compared with: the same method, or `mcts` where we have no other tree."""
    ours = next(peer for peer in ALL if peer.name == OURS)
    return Cell(OURS, cell.method if cell.method in ours.offers else "mcts", cell.size)


def _against(rows: Sequence[Row], ours: Sequence[Row]) -> tuple[str, str, str]:
    found = compare(_outcomes(rows), _outcomes(ours))
    span = found.bootstrap
    between = "not estimable" if span is None else f"{100 * span.low:+.1f}, {100 * span.high:+.1f}"
    return f"{100 * found.difference:+.1f} [{between}]", f"{found.wins}, {found.losses}", f"{found.p:.2f}"


def _outcomes(rows: Sequence[Row]) -> Outcomes:
    return Outcomes.of({row.id: {0: float(row.right)} for row in rows})


def equal_tokens_table(measured: Measured) -> str:
    """By method each peer's accuracy at the same generated tokens, between measured sizes; empty with one size."""
    head = ["method", "by", "generated tokens a question", "accuracy % [95 %]", "less ours, points [95 %]"]
    lines = []
    for method in METHODS:
        curves = _curves(measured, method)
        at = shared_tokens(list(curves.values()), 3) if len(curves) > 1 else []
        if not at:
            continue
        clusters = np.arange(len(next(iter(curves.values())).accuracy), dtype=np.intp)
        made = accuracy_at(list(curves.values()), clusters, at)
        for (name, curve), found in zip(curves.items(), made, strict=True):
            for tokens, here in zip(at, found, strict=True):
                line = [method, name, f"{tokens:,.0f}"]
                line += [
                    "" if here is None else f"{100 * here.value:.1f} [{100 * here.low:.0f}, {100 * here.high:.0f}]"
                ]
                less = difference_at(curve, curves[OURS], clusters, tokens) if name != OURS and OURS in curves else None
                span = "" if less is None else f" [{100 * less.low:+.1f}, {100 * less.high:+.1f}]"
                lines.append([*line, "" if less is None else f"{100 * less.value:+.1f}{span}"])
    return table(head, lines) if lines else ""


def _curves(measured: Measured, method: str) -> dict[str, Curve]:
    """By peer the curve over its sizes of a method, where there are at least two, on the questions that all have."""
    runs: dict[str, list[Sequence[Row]]] = {}
    for cell, rows in measured.items():
        if cell.method == method:
            runs.setdefault(cell.peer, []).append(rows)
    runs = {name: sizes for name, sizes in runs.items() if len(sizes) > 1}
    if not runs:
        return {}
    shared = set.intersection(*({row.id for row in rows} for sizes in runs.values() for rows in sizes))
    found = {}
    for name, sizes in runs.items():
        kept = [sorted((row for row in rows if row.id in shared), key=lambda row: row.id) for rows in sizes]
        accuracy = np.array([[float(row.right) for row in rows] for rows in kept]).T
        tokens = np.array([[float(row.tokens) for row in rows] for rows in kept]).T
        found[name] = Curve(name, accuracy, tokens)
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
