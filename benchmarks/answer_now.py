"""Seconds from the request for an answer now to the answer, by strategy, on the embedded engine.

    python benchmarks/answer_now.py            prints the table
    python benchmarks/answer_now.py --write    writes it into docs/results/thinking.md

Each strategy starts a question; `--after` seconds after the start of its run `Reasoner.conclude` is called. A strategy
that has its answer before that is measured again with an earlier request, at half of the time that it took. The script
ends with status 1 if an answer took more than `MAX_SECONDS`, or if a run gave none.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from reason.agents.reasoner import Reasoner
from reason.core.errors import ReasonError
from reason.core.run import Run, new_run_id
from reason.core.settings import Settings
from reason.core.types import Question
from reason.reasoning.strategy import STRATEGIES
from reporting import made_here, table
from thinking_contract import PAGE, write_section

MODEL: Final = "local/smollm2-135m"
MAX_SECONDS: Final = 2.0
QUESTION: Final = (
    "A farmer has 17 sheep, 12 goats and 9 cows. He sells 8 sheep and buys 5 goats. Then a third of the cows fall ill. "
    "How many healthy animals does he have?"
)
DOCUMENT: Final = "The farmer keeps sheep, goats and cows. Ill animals are kept apart from healthy ones."
OPTIONS: Mapping[str, dict[str, Any]] = {
    "hogwild": {"parameters": {"any_model": True}},
    "rag": {"context": [lambda text, n: [DOCUMENT][:n]]},
}
SKIPPED: Mapping[str, str] = {}


@dataclass(frozen=True)
class Measurement:
    """One run.

    Attributes:
        request_s: Seconds from the start to the request; None if the run was done before.
        answer_s: Seconds from the request to the answer, or from the start if the run was done before.
    """

    strategy: str
    request_s: float | None
    answer_s: float
    stopped: str
    answer: str | None
    based_on: str
    error: str = ""


async def measure(reasoner: Reasoner, strategy: str, after_s: float) -> Measurement:
    """Run a strategy and request the answer after some seconds."""
    choices = ("30", "32", "35", "38") if strategy == "logprob" else ()
    kind = "choice" if choices else "number"
    variant = await reasoner.variant(strategy, **OPTIONS.get(strategy, {}))
    plan = variant.plan(Question(text=QUESTION, kind=kind, choices=choices), seed=3)
    run_id = new_run_id()
    started = requested = 0.0
    has_started = asyncio.Event()

    def on_start(run: Run) -> None:
        nonlocal started
        started = time.monotonic()
        has_started.set()

    async def request() -> None:
        nonlocal requested
        await has_started.wait()
        await asyncio.sleep(after_s)
        requested = time.monotonic()
        variant.conclude(run_id)

    task = asyncio.ensure_future(request())
    try:
        answer = await variant.arun(plan, run_id=run_id, on_start=on_start)
    except ReasonError as e:
        return Measurement(strategy, None, 0.0, "error", None, "", str(e))
    finally:
        task.cancel()
    ended = time.monotonic()
    if not requested:
        return Measurement(strategy, None, ended - started, answer.stopped, answer.answer, "")
    text = answer.answer or answer.text or None
    return Measurement(strategy, requested - started, ended - requested, answer.stopped, text, answer.based_on)


async def measure_all(names: list[str], after_s: float) -> list[Measurement]:
    """All strategies, one after the other, on one opened model."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(model=MODEL, store=Path(directory) / "runs.sqlite3")
        async with Reasoner(settings=settings) as reasoner:
            await reasoner.load()
            for name in names:
                row = await measure(reasoner, name, after_s)
                for _ in range(3):
                    if row.request_s is not None or row.error:
                        break
                    row = await measure(reasoner, name, row.answer_s / 2)
                rows.append(row)
                print(row, file=sys.stderr, flush=True)
    return rows


def report(rows: list[Measurement]) -> str:
    """The conclusion and the table."""
    waited = [row.answer_s for row in rows if row.request_s is not None]
    lines = [
        [
            f"`{row.strategy}`",
            "done before" if row.request_s is None else f"{row.request_s:.2f}",
            f"{row.answer_s:.2f}",
            row.stopped,
            row.error or row.based_on or "the run's own answer",
        ]
        for row in rows
    ]
    head = ["strategy", "requested after, s", "answer after the request, s", "stopped", "based on"]
    return (
        f"The longest wait was {max(waited, default=0.0):.2f} s (bound: {MAX_SECONDS:g} s) over {len(waited)} "
        f"strategies on `{MODEL}`. Measured by `python benchmarks/answer_now.py --write`. {made_here()}\n\n"
        f"{table(head, lines)}"
    )


def main() -> int:
    """Measure, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--after", type=float, default=1.5, help="seconds from the start to the request")
    parser.add_argument("--strategy", action="append", choices=STRATEGIES.names(), help="one strategy")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    args = parser.parse_args()
    names = args.strategy or [name for name in STRATEGIES.names() if name not in SKIPPED]
    rows = asyncio.run(measure_all(names, args.after))
    if args.write:
        write_section(PAGE, "answer-now", report(rows))
    else:
        print(report(rows))
    late = [row for row in rows if row.error or (row.request_s is not None and row.answer_s > MAX_SECONDS)]
    without = [row for row in rows if row.request_s is not None and row.answer is None]
    return 1 if late or without else 0


if __name__ == "__main__":
    raise SystemExit(main())
