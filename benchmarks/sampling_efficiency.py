"""Self-consistency, PPL, PC, RPC and stopping rules on recorded samples: accuracy by number of samples.

    python benchmarks/sampling_efficiency.py --pool benchmarks/pools/qwen2.5-coder-0.5b.jsonl --docs docs > table.md

The pool is made by `sampling_pool.py`; no model runs. k of the recorded samples are drawn without replacement under 20
seeds, the same positions for every question, as the authors of RPC do. Intervals: percentiles of a bootstrap over
questions of the mean over seeds; comparisons: sign flips by questions, adjusted within a table and written to
`docs/results/comparisons/sampling_efficiency.json`. Tied answers share credit. Simulated pools of 128 samples follow,
with known truth.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from reason.evals.statistics.outcomes import Outcomes
from reason.evals.statistics.paired import compare_paired
from reason.reasoning.stopping import Agreement, Beta, Dirichlet, NoStop, StoppingRule, Tally
from reason.reasoning.voting.path_votes import Method, vote
from reason.reasoning.voting.path_votes import Path as SampledPath
from reporting import Comparison, compared, comparisons_table, write_comparisons

SEEDS = 20
RESAMPLES = 10_000
METHODS: tuple[Method, ...] = ("sc", "ppl", "pc", "rpc")
NAMES = {"sc": "SC", "ppl": "PPL (best-of-n by log-probability)", "pc": "PC", "rpc": "RPC"}
FIXED = 16
RULES: dict[str, StoppingRule] = {
    "fixed n = 16": NoStop(),
    "agreement, window 5": Agreement(),
    "agreement, window 3": Agreement(window=3),
    "beta 0.95": Beta(),
    "dirichlet, cost 0.025": Dirichlet(cost=0.025),
    "dirichlet, cost 0.05": Dirichlet(),
    "dirichlet, cost 0.08": Dirichlet(cost=0.08),
    "dirichlet, cost 0.09": Dirichlet(cost=0.09),
    "dirichlet, cost 0.1": Dirichlet(cost=0.1),
}


@dataclass(frozen=True)
class Pool:
    """All samples of one question."""

    labels: list[int | None]
    logprobs: list[float | None]
    tokens: list[int]
    texts: list[int]
    right: frozenset[int]

    def paths(self, picked: Sequence[int]) -> list[SampledPath]:
        """Some of them as the vote takes them."""
        return [
            SampledPath(str(self.texts[i]), None if self.labels[i] is None else str(self.labels[i]), self.logprobs[i])
            for i in picked
        ]


@dataclass(frozen=True)
class Outcome:
    """What a vote over some samples is worth: its credit in [0, 1], and its confidence."""

    credit: float
    confidence: float


def vote_outcome(pool: Pool, picked: Sequence[int], method: Method) -> Outcome:
    """Let some samples vote."""
    labels = [pool.labels[i] for i in picked]
    classes: dict[int, list[int]] = {}
    for at, label in enumerate(labels):
        if label is not None:
            classes.setdefault(label, []).append(at)
    result = vote(pool.paths(picked), list(classes.values()), method)
    credit = sum(c.credit for c in result.classes if c.answer is not None and int(c.answer) in pool.right)
    confidence = result.confidence
    if result.method_used == "sc":  # a share of all samples, as the strategy gives it
        confidence *= sum(label is not None for label in labels) / len(labels)
    return Outcome(credit, confidence)


def orders(samples: int) -> list[list[int]]:
    """The order of samples under each seed: the reference's shuffle."""
    made = []
    for seed in range(SEEDS):
        order = list(range(samples))
        random.Random(seed).shuffle(order)
        made.append(order)
    return made


def ece(outcomes: Sequence[Outcome]) -> float:
    """Expected calibration error in ten bins, with the credit as accuracy."""
    confidence = np.array([o.confidence for o in outcomes])
    credit = np.array([o.credit for o in outcomes])
    bins = np.clip(np.ceil(confidence * 10).astype(int) - 1, 0, 9)
    gaps = [abs((credit[bins == b] - confidence[bins == b]).sum()) for b in range(10)]
    return float(sum(gaps) / len(outcomes))


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of the mean over questions."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def span(values: np.ndarray) -> str:
    """A mean in per cent with its interval."""
    low, high = interval(values)
    return f"{100 * values.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def accuracy_table(
    pools: Sequence[Pool], sizes: Sequence[int]
) -> tuple[list[str], dict[Method, dict[int, np.ndarray]]]:
    """Accuracy by method and number of samples; and the credit of each question, the mean over seeds."""
    sampled = orders(len(pools[0].labels))
    credit: dict[Method, dict[int, np.ndarray]] = {m: {} for m in METHODS}
    errors: dict[Method, dict[int, float]] = {m: {} for m in METHODS}
    for method, k in itertools.product(METHODS, sizes):
        made = [[vote_outcome(pool, order[:k], method) for pool in pools] for order in sampled]
        credit[method][k] = np.array([[o.credit for o in one] for one in made]).mean(axis=0)
        errors[method][k] = float(np.mean([ece(one) for one in made]))
    lines = ["| accuracy % | " + " | ".join(f"k = {k}" for k in sizes) + " |", "| --- |" + " --- |" * len(sizes)]
    for method in METHODS:
        lines.append(f"| {NAMES[method]} | " + " | ".join(span(credit[method][k]) for k in sizes) + " |")
    lines.append(
        "| RPC less SC, points | " + " | ".join(span(credit["rpc"][k] - credit["sc"][k]) for k in sizes) + " |"
    )
    reached = [
        np.array([any(pool.labels[i] in pool.right for i in order[:k]) for order in sampled for pool in pools]).reshape(
            len(sampled), -1
        )
        for k in sizes
    ]
    lines.append("| any sample right | " + " | ".join(span(r.mean(axis=0)) for r in reached) + " |")
    lines += ["", "| ECE | " + " | ".join(f"k = {k}" for k in sizes) + " |", "| --- |" + " --- |" * len(sizes)]
    for method in METHODS:
        lines.append(f"| {NAMES[method]} | " + " | ".join(f"{errors[method][k]:.3f}" for k in sizes) + " |")
    return lines, credit


def credit_outcomes(credit: np.ndarray) -> Outcomes:
    """Mean credit of each question as outcomes."""
    return Outcomes(tuple(map(str, range(len(credit)))), np.arange(len(credit)), credit[:, None])


def rpc_against_sc(by_name: dict[str, dict[Method, dict[int, np.ndarray]]]) -> list[Comparison]:
    """RPC with self-consistency at every number of samples of every dataset, as one table."""
    return compared(
        [
            (
                f"sampling-efficiency/rpc-vs-sc-{name}-{k}",
                f"RPC, {name}, k = {k}",
                "self-consistency",
                compare_paired(credit_outcomes(credit["rpc"][k]), credit_outcomes(credit["sc"][k])),
            )
            for name, credit in by_name.items()
            for k in credit["rpc"]
            if k > 1
        ]
    )


def samples_needed(credit: dict[Method, dict[int, np.ndarray]], sizes: Sequence[int]) -> str:
    """At how many samples RPC is as good as self-consistency at its best, with a bootstrap over questions."""
    sc = np.stack([credit["sc"][k] for k in sizes])
    rpc = np.stack([credit["rpc"][k] for k in sizes])

    def found(picked: np.ndarray) -> tuple[int, int | None]:
        best = sc[:, picked].mean(axis=1)
        there = np.flatnonzero(rpc[:, picked].mean(axis=1) >= best.max() - 1e-12)
        return sizes[int(best.argmax())], sizes[int(there[0])] if len(there) else None

    at, needed = found(np.arange(sc.shape[1]))
    rng = np.random.default_rng(0)
    again = [found(rng.integers(0, sc.shape[1], sc.shape[1])) for _ in range(2000)]
    half = np.mean([n is not None and n <= k / 2 for k, n in again])
    never = np.mean([n is None for _, n in again])
    reported = "does not reach it" if needed is None else f"reaches it at k = {needed}"
    return (
        f"SC peaks at k = {at}; RPC {reported}. Over 2,000 resamples of the questions it needs at most half of SC's "
        f"samples in {100 * half:.0f} % and does not reach SC's best in {100 * never:.0f} %."
    )


def stopping_table(pools: Sequence[Pool]) -> tuple[list[str], list[Comparison]]:
    """Each rule in rounds and in a race: accuracy, samples, tokens, and what it loses against all 16."""
    results: dict[str, dict[str, list[Any]]] = {}
    for order in orders(len(pools[0].labels)):
        for pool in pools:
            first = order[:FIXED]
            for name, rule in RULES.items():
                kept = in_rounds(pool, first, rule)
                for mode, (used, tokens) in (
                    ("rounds", (kept, sum(pool.tokens[i] for i in kept))),
                    ("race of 2", in_a_race(pool, first, rule, 2)),
                    ("race of 4", in_a_race(pool, first, rule, 4)),
                    ("race of all", in_a_race(pool, first, rule, FIXED)),
                ):
                    one = results.setdefault(f"{name} | {mode}", {"credit": [], "samples": [], "tokens": []})
                    one["credit"].append(vote_outcome(pool, used, "sc").credit)
                    one["samples"].append(len(used))
                    one["tokens"].append(tokens)
    means = {
        name: {k: np.array(v).reshape(SEEDS, -1).mean(axis=0) for k, v in one.items()} for name, one in results.items()
    }
    fixed = means["fixed n = 16 | rounds"]
    lines = [
        "| rule | drawn in | accuracy % | less fixed, points | samples | tokens | tokens saved % |",
        "| --- | --- | --- | --- | ---: | ---: | --- |",
    ]
    for name, one in means.items():
        if name.startswith("fixed n = 16 | race"):
            continue
        saved = 1 - one["tokens"].sum() / fixed["tokens"].sum()
        ends = saved_interval(one["tokens"], fixed["tokens"])
        lost = span(one["credit"] - fixed["credit"])
        lines.append(
            f"| {name} | {span(one['credit'])} | {lost} | {one['samples'].mean():.1f} | {one['tokens'].mean():,.0f} | "
            f"{100 * saved:.1f} [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}] |"
        )
    pairs = compared(
        [
            (
                f"sampling-efficiency/{re.sub(r'[^a-z0-9.]+', '-', name)}-vs-fixed",
                name.replace(" | ", ", "),
                "all 16",
                compare_paired(credit_outcomes(one["credit"]), credit_outcomes(fixed["credit"])),
            )
            for name, one in means.items()
            if name.endswith("rounds") and not name.startswith("fixed")  # the votes of a race are those of rounds
        ]
    )
    return lines, pairs


def saved_interval(tokens: np.ndarray, fixed: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of the share of tokens saved, over questions."""
    rng = np.random.default_rng(0)
    picked = rng.integers(0, len(tokens), (RESAMPLES, len(tokens)))
    low, high = np.quantile(1 - tokens[picked].sum(axis=1) / fixed[picked].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def tally_of(pool: Pool, picked: Sequence[int]) -> Tally:
    """The samples in this order as a rule sees them."""
    names: dict[int, int] = {}
    labels = [None if (label := pool.labels[i]) is None else names.setdefault(label, len(names)) for i in picked]
    return Tally(tuple(labels))


def in_rounds(pool: Pool, order: Sequence[int], rule: StoppingRule) -> list[int]:
    """The samples that are sampled in rounds."""
    used: list[int] = []
    while len(used) < len(order):
        wave = rule.round_size(tally_of(pool, used), len(order) - len(used))
        used += order[len(used) : len(used) + wave]
        if rule.should_stop(tally_of(pool, used)):
            break
    return used


def in_a_race(pool: Pool, order: Sequence[int], rule: StoppingRule, width: int) -> tuple[list[int], int]:
    """The samples that count in a race, a token a step each; and all tokens, of those that are cancelled too.

    Samples count in the order in which they were started, as in `reason.reasoning.sampling`.
    """
    free = [0] * width  # when each lane is free
    waiting, under_way = list(order), list[tuple[int, int, int]]()
    finished, counted = set[int](), list[int]()
    while waiting or under_way:
        while waiting and len(under_way) < width:
            begins = free.pop(0)
            sample = waiting.pop(0)
            under_way.append((begins + pool.tokens[sample], begins, sample))
        under_way.sort()
        now, _, sample = under_way.pop(0)
        free = sorted([*free, now])
        finished.add(sample)
        while len(counted) < len(order) and order[len(counted)] in finished:
            counted.append(order[len(counted)])
            if rule.should_stop(tally_of(pool, counted)):
                cut = sum(max(0, now - begins) for _, begins, _ in under_way)
                return counted, sum(pool.tokens[i] for i in finished) + cut
    return counted, sum(pool.tokens[i] for i in order)


# -- simulated pools


def simulated(questions: int, samples: int, seed: int) -> list[Pool]:
    """Pools whose truth is known.

    The chance of the right answer is Beta(1.5, 2.5) by question; wrong answers are Zipf with exponent 1.2 over 12. The
    mean log-probability of a right chain is -0.25, of a wrong one -0.40, times a log-normal factor: standard deviation
    0.5 by question and 0.35 by chain. So the two overlap, and probability is more informative than for a small model.
    """
    rng = np.random.default_rng(seed)
    wrong = 1.0 / np.arange(1, 13) ** 1.2
    wrong /= wrong.sum()
    pools = []
    for _ in range(questions):
        chance, level = rng.beta(1.5, 2.5), rng.normal(0, 0.5)
        hits = rng.random(samples) < chance
        labels = np.where(hits, 0, 1 + rng.choice(12, samples, p=wrong))
        means = -np.exp(np.log(np.where(hits, 0.25, 0.40)) + level + rng.normal(0, 0.35, samples))
        pools.append(
            Pool(
                [int(c) for c in labels], [float(s) for s in means], [1] * samples, list(range(samples)), frozenset({0})
            )
        )
    return pools


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--simulated", type=int, default=200, help="simulated questions")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="directory that the comparisons are written to")
    args = parser.parse_args()
    setting, *lines = [json.loads(line) for line in args.pool.read_text().splitlines()]
    by_dataset: dict[str, list[Pool]] = {}
    for line in lines:
        pool = Pool(line["class"], line["logprob"], line["tokens"], line["text"], frozenset(line["right"]))
        by_dataset.setdefault(line["dataset"], []).append(pool)
    path = args.docs / "results" / "comparisons" / "sampling_efficiency.json"
    comparisons: list[Comparison] = []

    def add(made: list[Comparison]) -> None:
        """Print the comparisons of a table, and write them with those of the tables before: a run takes minutes."""
        comparisons.extend(replace(c, seeds=SEEDS) for c in made)
        write_comparisons(path, comparisons)
        print(comparisons_table(made) + "\n", flush=True)

    sizes = [1, 2, 4, 8, 16, 32]
    both = [pool for pools in by_dataset.values() for pool in pools]
    by_name: dict[str, dict[Method, dict[int, np.ndarray]]] = {}
    for name, pools in by_dataset.items():
        print(f"### {name}: {len(pools)} questions, {len(pools[0].labels)} recorded samples each\n")
        rows, by_name[name] = accuracy_table(pools, sizes)
        print("\n".join(rows), "\n\n" + samples_needed(by_name[name], sizes), "\n")
    print("### RPC less self-consistency, tested\n")
    add(rpc_against_sc(by_name))
    print(f"### Simulated pools: {args.simulated} questions, 128 samples each\n")
    long = [1, 2, 4, 8, 16, 32, 64, 128]
    rows, credit = accuracy_table(simulated(args.simulated, 128, 0), long)
    print("\n".join(rows), "\n\n" + samples_needed(credit, long), "\n")
    add(rpc_against_sc({"simulated": credit}))
    print(f"### Stopping rules, {len(both)} questions, majority vote, at most {FIXED} samples\n")
    rows, stopped = stopping_table(both)
    print("\n".join(rows), "\n")
    add(stopped)
    if len(by_dataset) > 1:
        print(f"### all: {len(both)} questions, {len(both[0].labels)} recorded samples each\n")
        rows, credit = accuracy_table(both, sizes)
        print("\n".join(rows), "\n\n" + samples_needed(credit, sizes), "\n")
    made = setting["setting"]
    print(f"- model: {made['model']}, engine {made['engine']}; sampling {json.dumps(made['sampling'])}")
    print(f"- recorded on {made['machine']}: " + ", ".join(f"{k} {v}" for k, v in made["versions"].items()))
    print(
        f"- tables: {datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} processors, "
        f"reason {version('reason-orchestrator')}, numpy {version('numpy')}, scipy {version('scipy')}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
