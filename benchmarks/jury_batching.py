r"""Does a jury of one model take as long as its longest chain of calls? Stages that run as batches, on one engine.

    python benchmarks/jury_batching.py --model local/smollm2-135m --data TRUTHFULQA.jsonl --questions 4

Three jurors of one model answer, review one another, and the model takes the chair. For every question, one after the
other in one process:

    the jury, as it is                     each round of requests to the model is one batch
    each of its requests alone             nothing else runs, as many tokens as in the jury
    the jury, one request after another    the same strategy over a model that makes one sample at a time
    the jury, as it is, once more          the mean of the two counts, so that a drifting pace hits all alike

The longest chain of calls is the slowest request of each round, alone, added up over the rounds: no jury that waits
for its opinions before it reviews is faster than that, however little batching costs. The goal is less than 1.5 times
as long.

Every measurement gets an engine of its own, so that none finds the keys and values of another. A request that goes on
with an earlier one (the answer asked for behind a text, a repair) finds that one, as it does in the jury. Requests
alone ignore the end of the text, so that they are as long as in the jury; the jury's own two ways may part, since sums
in another order differ in their last bits, and are compared per token.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from davinci_cells import table
from jury_rounds import Bench, Measured
from machine import processor
from reason.core.settings import load_settings
from reason.core.sqlite_store import SqliteStore
from reason.evals.opening import absolute, open_task
from reason.evals.plan import TaskSource
from reason.evals.statistics.intervals import bootstrap_means, percentiles

GOAL = 1.5
STAGES = ("answer", "review", "chair")


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, help="TruthfulQA's rows; without it the hub's")
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--jurors", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128, help="most of an opinion")
    parser.add_argument("--review-tokens", type=int, default=128)
    parser.add_argument("--chair-tokens", type=int, default=192)
    parser.add_argument("--form", choices=("json", "lines"), default="lines")
    print(asyncio.run(report(parser.parse_args())))
    return 0


async def report(given: argparse.Namespace) -> str:
    """Measure, and make the tables."""
    task = open_task(absolute(TaskSource(dataset="truthfulqa", data=given.data, variant="mc1")))
    questions = [item.question for item in list(task.items.values())[: given.questions]]
    with tempfile.TemporaryDirectory() as scratch:
        settings = load_settings(store=Path(scratch) / "runs.sqlite3", model=given.model)
        store = await SqliteStore.open(settings.store)
        try:
            bench = Bench(given, settings, store)
            await bench.sit(questions[0], len(questions))  # what is loaded once is loaded here
            measured = [await bench.measure(question, seed) for seed, question in enumerate(questions)]
        finally:
            await store.aclose()
    return "\n\n".join([head(given, bench.weight_format, len(questions)), *tables(measured)])


def head(given: argparse.Namespace, weight_format: str, questions: int) -> str:
    """What was measured, where and when."""
    try:
        torch = f", torch {version('torch')}"
    except PackageNotFoundError:
        torch = ""
    numbers = f" in {weight_format}" if weight_format else ""
    return (
        f"{given.model.rpartition('/')[2]}{numbers}, {given.jurors} jurors, {questions} questions of TruthfulQA MC1; "
        f"at most {given.tokens} tokens an opinion, {given.review_tokens} a review, {given.chair_tokens} the chair; "
        f"{processor()}, {os.cpu_count()} cores, reason {version('reason-orchestrator')}{torch}, "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, load {os.getloadavg()[0]:.1f}"
    )


def tables(measured: Sequence[Measured]) -> list[str]:
    """Seconds by stage, and of the whole."""
    rows = []
    for stage in STAGES:
        of = [
            (batch, alone)
            for one in measured
            for batch, alone in zip(one.jury[0].batches, one.alone, strict=True)
            if batch.stage == stage
        ]
        if not of:
            continue
        took, longest = sum(b.seconds for b, _ in of), sum(max(a) for _, a in of)
        everything = sum(sum(a) for _, a in of)
        requests, tokens = sum(len(b.requests) for b, _ in of), sum(sum(b.tokens) for b, _ in of)
        n = len(measured)
        rows.append(
            [
                *(stage, f"{len(of) / n:.2f}", f"{requests / n:.2f}", f"{tokens / n:,.0f}"),
                *(f"{seconds / n:.2f}" for seconds in (took, longest, everything)),
                *(f"{took / longest:.2f}", f"{everything / took:.2f}"),
            ]
        )
    by_stage = table(
        (
            *("stage", "rounds", "requests", "tokens", "s as batches", "s of the longest, alone", "s of all, alone"),
            *("batches / longest", "all alone / batches"),
        ),
        rows,
    )
    jury = np.array([[one.seconds, one.chain] for one in measured])
    ratio = quotient(jury)
    pace = np.array(
        [
            [
                *(one.serial.seconds, one.serial.tokens),
                *(one.seconds, (one.jury[0].tokens + one.jury[1].tokens) / 2),
            ]
            for one in measured
        ]
    )
    serial = quotient(np.stack([pace[:, 0] / pace[:, 1], pace[:, 2] / pace[:, 3]], axis=1))
    met = "met" if jury[:, 0].sum() / jury[:, 1].sum() < GOAL else "not met"
    whole = table(
        (
            *("questions", "s a question, the jury", "s, its longest chain of calls", "jury / chain [95 %]"),
            *(f"goal < {GOAL}", "one request after another, s a token / the jury's [95 %]"),
        ),
        [[str(len(measured)), *(f"{mean:.2f}" for mean in jury.mean(axis=0)), ratio, met, serial]],
    )
    return ["Means a question.", by_stage, whole]


def quotient(pairs: np.ndarray) -> str:
    """The quotient of two columns' sums with its interval over questions."""
    value = pairs[:, 0].sum() / pairs[:, 1].sum()
    if len(pairs) < 2:
        return f"{value:.2f}"
    again = bootstrap_means(pairs, np.arange(len(pairs)))
    low, high = percentiles(again[:, 0] / again[:, 1])
    return f"{value:.2f} [{float(low):.2f}, {float(high):.2f}]"


if __name__ == "__main__":
    sys.exit(main())
