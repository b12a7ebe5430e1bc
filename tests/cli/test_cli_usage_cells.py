"""Usage in the terminal: cached prompt tokens by model and role among the cells."""

from __future__ import annotations

import io
import re

import pytest
from reason.cli.render import run_page as run_view
from reason.cli.render.answer import USAGE_COLUMNS, usage_cells
from reason.core.budget import Budget, Ledger
from reason.core.messages import Usage
from reason.core.types import Answer, RoleUsage, Verification
from rich.console import Console


@pytest.fixture
def answer() -> Answer:
    ledger = Ledger(Budget(), clock=iter([0.0, 1.5]).__next__)
    spent = Usage(prompt_tokens=12_000, cached_tokens=11_500, completion_tokens=80, cost_usd=0.25)
    ledger.charge("main", "local/a", spent, calls=3, replayed_tokens=20, working_s=0.75)
    ledger.charge("main", "local/a", Usage(prompt_tokens=1000, cached_tokens=900), calls=1)
    ledger.charge("judge", "local/b", Usage(prompt_tokens=7, cost_usd=None), calls=1)
    return Answer(
        answer="x",
        text="x",
        strategy="cot",
        model="local/a",
        confidence=None,
        candidates=(),
        verification=Verification(),
        usage=ledger.usage(),
        run_id="r",
        seed=1,
        stopped="done",
    )


def test_each_cell_stands_under_its_heading(answer: Answer) -> None:
    row = dict(zip(USAGE_COLUMNS, usage_cells(answer.usage.by_role["main:local/a"]), strict=True))
    assert row == {
        "calls": "4",
        "prompt": "13,000",
        "cached": "12,400",
        "generated": "80",
        "from store": "20",
        "USD": "0.2500",
        "working": "0.8 s",
    }
    total = dict(zip(USAGE_COLUMNS, usage_cells(answer.usage), strict=True))
    assert (total["cached"], total["USD"], total["working"]) == ("12,400", "?", "1.5 s wall")
    assert usage_cells(RoleUsage(model="m"))[2] == "0"


def test_the_terminal_shows_them(answer: Answer) -> None:
    console = Console(file=io.StringIO(), width=140)
    console.print(run_view._usage(answer))
    told = console.file.getvalue()  # type: ignore[attr-defined]
    for role, row in answer.usage.by_role.items():
        cells = usage_cells(row)
        line = next(x for x in told.splitlines() if x.startswith(role.partition(":")[0]))
        assert re.split(r"\s{2,}", line.strip())[2:] == list(cells)
    assert "12,400" in told
    assert all(head in told for head in USAGE_COLUMNS)
