"""Votes and races of eight models that were sampled eight times on AIME 2024 and GPQA Diamond.

    python benchmarks/recorded/thinking_models.py --pools DIR --docs docs

Accuracy against all tokens and against waiting, which is the time to the answer in tokens of one sequence, both as
shares of those of the vote of all eight samples started at once. The rules are those of `reasoning/stopping`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from data import arguments, fingerprint, grouped, read

sys.path.append(str(Path(__file__).resolve().parents[1]))

from non_inferiority import NonInferiority, non_inferiority
from reason.evals.statistics.outcomes import Outcomes, number_groups
from reason.evals.statistics.paired import PairedComparison, compare_paired
from reason.reasoning.stopping import Beta, FirstFinished, Lead, StoppingRule
from reporting import compared, comparisons_table, table, write_results
from stopping import Floats, Integers, Orders, Replay, credit_of, majority, orders_of, race, rounds

NAME = "recorded_thinking_models"
SAMPLES = 8
MARGIN = 0.01
CAPPED = ("Qwen/Qwen3-235B-A22B-Instruct-2507", "openai/gpt-oss-120b")
"""Models with many samples that were cut at the source's limit."""
DATASETS = {"aime2024": "AIME 2024", "gpqa_diamond": "GPQA Diamond"}
Result = tuple[str, str, str, PairedComparison | NonInferiority]
Method = Callable[[Orders], Replay]


def weighted(weight: Callable[[Floats], Floats]) -> Method:
    """The vote of all samples, each weighted by a function of its length."""

    def method(orders: Orders) -> Replay:
        full = majority(orders, SAMPLES)
        sums = sums_of(orders.labels, weight(orders.tokens.astype(float)), orders.right.shape[2])
        return Replay(credit_of(orders, winners(sums)), full.samples, full.tokens, full.waiting)

    return method


def sums_of(labels: Integers, weights: Floats, classes: int) -> Floats:
    """Sum of the weights of each class, `[questions, orders, classes]`."""
    member = labels[..., None] == np.arange(classes)
    result: Floats = (member * weights[..., None]).sum(2)
    return result


def winners(sums: Floats) -> Integers:
    """The heaviest class, of equals the one reached first; -1 if no class has a weight."""
    return np.where(sums.max(2) > 0, sums.argmax(2), -1)


def shortest(count: int, *, answered: bool) -> Method:
    """All start at once; the first `count` to finish (with an answer) vote, the others are cancelled."""
    if answered:
        return lambda orders: race(orders, FirstFinished(finished=count), SAMPLES, by_completion=True)

    def method(orders: Orders) -> Replay:
        positions = orders.tokens.argsort(2, kind="stable")
        arranged = orders.arranged(positions)
        over = arranged.tokens[..., count - 1].astype(float)
        spent = np.minimum(orders.tokens, over[..., None]).sum(2)
        return Replay(majority(arranged, count).credit, np.full(over.shape, float(count)), spent, over)

    return method


def in_rounds(rule: StoppingRule) -> Method:
    """One sample at a time."""
    return lambda orders: rounds(orders, rule)


def in_race(rule: StoppingRule, width: int) -> Method:
    """A race, counted in the order in which the samples were started."""
    return lambda orders: race(orders, rule, width, by_completion=False)


METHODS: dict[str, Method] = {
    "majority of 8": lambda orders: majority(orders, 8),
    "majority of 1": lambda orders: majority(orders, 1),
    "majority of 3": lambda orders: majority(orders, 3),
    "majority of 4": lambda orders: majority(orders, 4),
    "majority of 6": lambda orders: majority(orders, 6),
    "weights by length (token-weighted)": weighted(lambda tokens: tokens),
    "weights by 1 / length": weighted(lambda tokens: 1 / tokens),
    "shortest of 8": shortest(1, answered=False),
    "first 3 of 8": shortest(3, answered=False),
    "first 4 of 8": shortest(4, answered=False),
    "first 5 of 8": shortest(5, answered=False),
    "first 1 with an answer": shortest(1, answered=True),
    "first 2 with an answer": shortest(2, answered=True),
    "first 3 with an answer": shortest(3, answered=True),
    "first 4 with an answer": shortest(4, answered=True),
    "first 5 with an answer": shortest(5, answered=True),
    "first 6 with an answer": shortest(6, answered=True),
    "lead 2, rounds": in_rounds(Lead(lead=2)),
    "lead 3, unanimous 2, rounds": in_rounds(Lead()),
    "lead 3, rounds": in_rounds(Lead(unanimous=3)),
    "beta 0.95, rounds": in_rounds(Beta()),
    "lead 2, race of 2": in_race(Lead(lead=2), 2),
    "lead 2, race of 4": in_race(Lead(lead=2), 4),
    "lead 2, race of 8": in_race(Lead(lead=2), 8),
    "lead 3, race of 4": in_race(Lead(unanimous=3), 4),
    "lead 3, race of 8": in_race(Lead(unanimous=3), 8),
}
CLAIMED = (
    "lead 2, rounds",
    "lead 3, unanimous 2, rounds",
    "lead 3, rounds",
    "first 3 with an answer",
    "first 4 with an answer",
    "first 5 with an answer",
)
"""Compared with the vote of eight: not inferior by the margin."""


@dataclass(frozen=True)
class Cell:
    """A method on the questions of one data set and model, with its share of tokens and waiting."""

    replay: Replay
    full: Replay

    @property
    def shares(self) -> tuple[float, float]:
        """Tokens and waiting, as shares of those of the vote of eight."""
        return (
            float(self.replay.tokens.mean() / self.full.tokens.mean()),
            float(self.replay.waiting.mean() / self.full.waiting.mean()),
        )


def summary(cells: Sequence[Cell]) -> tuple[str, str, str]:
    """Accuracy over all pairs of a question and a model, and the mean of the models' shares over them."""
    accuracy = np.concatenate([cell.replay.credit.mean(1) for cell in cells]).mean()
    questions = [len(cell.replay.credit) for cell in cells]
    tokens, waiting = np.average([cell.shares for cell in cells], axis=0, weights=questions)
    return f"{100 * accuracy:.2f}", f"{tokens:.2f}", f"{waiting:.2f}"


def pooled(cells: dict[tuple[Any, ...], Cell], ids: dict[tuple[Any, ...], tuple[str, ...]]) -> Outcomes:
    """Success rates of all models' questions, a question's models as one group."""
    names = [(f"{model}:{question}", question) for (dataset, model), own in ids.items() for question in own]
    scores = np.concatenate([cells[key].replay.credit for key in ids])
    return Outcomes(tuple(name for name, _ in names), number_groups([q for _, q in names]), scores)


def main() -> int:
    """Write the page and the comparisons."""
    parser = arguments(__doc__)
    parser.add_argument("--orders", type=int, default=100, help="random orders of the samples")
    args = parser.parse_args()
    rows = [r for r in read(args.pools, args.side, "art_of_tts") if r["dataset"] in DATASETS]
    pools = grouped(rows, lambda r: (r["dataset"], r["model"]))
    sets: dict[tuple[Any, ...], Orders] = {key: orders_of(own, args.orders) for key, own in pools.items()}  # type: ignore[misc]
    ids = {key: orders.ids for key, orders in sets.items()}
    full = {key: majority(orders, SAMPLES) for key, orders in sets.items()}
    cells = {
        name: {key: Cell(method(orders), full[key]) for key, orders in sets.items()} for name, method in METHODS.items()
    }
    outcomes = {name: pooled(own, ids) for name, own in cells.items()}
    reference = outcomes["majority of 8"]
    results: list[Result] = []
    for name in CLAIMED:
        slug = name.replace(",", "").replace(" ", "-")
        results.append(
            (
                f"recorded-thinking-models/{slug}-vs-majority8",
                name,
                "majority of 8",
                non_inferiority(outcomes[name], reference, MARGIN),
            )
        )
    for name in ("first 3 with an answer", "first 5 with an answer"):
        slug, size = name.replace(" ", "-"), int(name.split()[1])
        plain = pooled({key: Cell(majority(orders, size), full[key]) for key, orders in sets.items()}, ids)
        results.append(
            (
                f"recorded-thinking-models/{slug}-vs-majority{size}",
                name,
                f"majority of {size}",
                compare_paired(outcomes[name], plain),
            )
        )
    for name in ("weights by length (token-weighted)", "weights by 1 / length"):
        slug = "token-weighted" if "token" in name else "inverse-length"
        results.append(
            (
                f"recorded-thinking-models/{slug}-vs-majority8",
                name,
                "majority of 8",
                compare_paired(outcomes[name], reference),
            )
        )
    comparisons = compared(results)
    by_name = {c.a: c for c in comparisons if c.b == "majority of 8"}

    def of(name: str, keep: Callable[[Any], bool]) -> tuple[str, str, str]:
        return summary([cell for key, cell in cells[name].items() if keep(key)])

    head = (
        "method",
        *(f"{part}: {x}" for part in ("all", *DATASETS.values()) for x in ("accuracy %", "tokens", "waiting")),
    )
    lines = [
        (name, *of(name, lambda _: True), *(x for d in DATASETS for x in of(name, lambda key, d=d: key[0] == d)))
        for name in METHODS
    ]
    uncapped = [
        (name, *of(name, lambda key: key[1] not in CAPPED), *of(name, lambda key: key[1] in CAPPED))
        for name in ("majority of 8", "majority of 4", *CLAIMED)
    ]
    models = sorted({str(key[1]) for key in sets})
    by_model = []
    for model in models:
        cut = np.mean([r["truncated"] for r in rows if r["model"] == model])
        of_model = {name: of(name, lambda key, m=model: key[1] == m) for name in METHODS}
        first, lead = of_model["first 5 with an answer"], of_model["lead 2, rounds"]
        by_model.append(
            (
                model.partition("/")[2],
                f"{100 * cut:.0f}",
                of_model["majority of 8"][0],
                of_model["weights by 1 / length"][0],
                of_model["weights by length (token-weighted)"][0],
                of_model["shortest of 8"][0],
                first[0],
                first[2],
                lead[0],
                lead[1],
            )
        )
    lead, first = by_name["lead 2, rounds"], by_name["first 5 with an answer"]
    spent = [sum(float(c.replay.tokens.sum()) for c in cells[m].values()) for m in ("lead 2, rounds", "majority of 8")]
    lead_all, first_all = of("lead 2, rounds", lambda _: True), of("first 5 with an answer", lambda _: True)
    text = [
        "# Thinking models on recorded samples",
        "",
        f"Over eight models on AIME 2024 and GPQA Diamond, one sample at a time under `lead 2` costs {lead_all[1]} of "
        f"the tokens of eight samples ({spent[0] / spent[1]:.2f} of all models' tokens together), at "
        f"{100 * lead.difference:+.2f} points [{100 * (lead.low or 0):+.2f}, {100 * (lead.high or 0):+.2f}] from "
        f"their majority ({100 * float(np.mean(reference.p)):.2f}%). That it is at most one point worse is "
        f"{lead.status} <!-- claim: {lead.id} -->. Half of the tokens is "
        f"{'reached' if float(lead_all[1]) <= 0.5 else 'not reached'}: on GPQA "
        f"{of('lead 2, rounds', lambda key: key[0] == 'gpqa_diamond')[1]}, on AIME "
        f"{of('lead 2, rounds', lambda key: key[0] == 'aime2024')[1]}, and more where samples are cut at a limit. A "
        "third of the waiting is not reached: the first answer alone takes "
        f"{of('first 1 with an answer', lambda _: True)[2]} of it, and costs "
        f"{100 * (np.mean(outcomes['first 1 with an answer'].p) - np.mean(reference.p)):+.1f} points. The first five "
        f"of eight with an answer take {first_all[2]} of the waiting and {first_all[1]} of the tokens at "
        f"{100 * first.difference:+.2f} points; that they cost at most one point is {first.status}. To be confirmed "
        "on AIME 2025 and the other half of GPQA.",
        "",
        "## All methods",
        "",
        table(head, lines),
        "",
        "Tokens and waiting are shares of those of all eight started at once, averaged over models as accuracy is. "
        "`first m with an answer` is the rule `first-finished` in a race of all eight; `lead` counts samples in the "
        "order in which they were started. In rounds, one sample at a time, the waiting is all tokens one after "
        "another.",
        "",
        "## Comparisons",
        "",
        comparisons_table(comparisons),
        "",
        f"{len(reference.ids):,} pairs of a question and a model; a question's models are one group. P-values are "
        "adjusted for the comparisons of this table (Holm). Weights by length, in either direction, do not help over "
        "all models; which of the two costs less differs by model.",
        "",
        "## Models",
        "",
        table(
            (
                "model",
                "cut %",
                "majority of 8 %",
                "weights 1 / length %",
                "weights by length %",
                "shortest %",
                "first 5 with an answer %",
                "its waiting",
                "lead 2, rounds %",
                "its tokens",
            ),
            by_model,
        ),
        "",
        "## Limits on tokens",
        "",
        "The source cut samples at a limit; a cut sample has no answer, but its tokens count. Qwen3-235B (5,000 "
        "tokens) and gpt-oss-120b (8,000 on AIME) are cut most. Without them:",
        "",
        table(
            ("method", "other six: accuracy %", "tokens", "waiting", "these two: accuracy %", "tokens", "waiting"),
            uncapped,
        ),
        "",
        "## How it was measured",
        "",
        "<!-- not run: it measures for hours -->",
        "```bash",
        f"python benchmarks/recorded/thinking_models.py --pools POOLS --side {args.side} --docs docs",
        "```",
        "",
        f"{args.orders} random orders of the eight samples (seed 0). Pool: "
        f"{fingerprint(args.pools, args.side, 'art_of_tts')}.",
        "",
        "## Limits",
        "",
        "Sample i of a question begins with the source's i-th seed phrase, so the samples are not exchangeable; the "
        "orders are random all the same, and the shortest sample may be that of one phrase. Waiting leaves out "
        "queueing and the lower speed of a larger batch. The pool has no log-probabilities, so votes by confidence "
        "cannot be measured on it. Eight samples are the whole pool: the majority of eight has no sampling error "
        "here.",
        "",
    ]
    page = "\n".join(text)
    write_results(args.docs, NAME, page, comparisons)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
