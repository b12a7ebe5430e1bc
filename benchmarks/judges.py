"""Judges as distributions on recorded verdicts: expected values, both orders, and tournaments with a pivot.

    python benchmarks/judges.py --pools DIR --docs docs
    python benchmarks/judges.py --pools DIR --read MODEL

The second form lets a model that returns probabilities compare and rate answers of the pool, and stores its verdicts in
`benchmarks/data/judges/`: no recorded judge has probabilities. The first form writes the page from the pools and from
these files. Tournaments choose among trajectories (`agents/trajectories`); no strategy compares answers in pairs.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent / "recorded"))

from data import Row, arguments, fingerprint, read
from reason.agents.trajectories.tournament import PivotTournament
from reason.core.messages import Prompt
from reason.core.run import Run, RunConfig
from reason.core.settings import load_settings
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.evals.statistics.intervals import bootstrap_means, percentiles
from reason.evals.statistics.outcomes import Outcomes, number_groups
from reason.evals.statistics.paired import PairedComparison, compare_paired
from reason.reasoning.anonymity import MATERIAL_NOTICE, make_blinding, show_answers
from reason.reasoning.best_of_n import MARKS, AnswerJudge
from reason.reasoning.prompts import question_prompt
from reason.serving.factory import load_model
from reason.serving.metered.model import MeteredModel
from reason.serving.verdict_distribution import VerdictDistribution, read_verdicts
from reporting import Comparison, compared, comparisons_table, finding, table, write_comparisons

STORED = Path(__file__).resolve().parent / "data" / "judges"
MODELS = ("gpt-4", "claude", "vicuna-13b", "gpt-3.5", "bard")
FIRST = {"A": 1.0, "tie": 0.5, "B": 0.0, "A>B": 1.0, "A=B": 0.5, "B>A": 0.0, None: 0.5}
"""Value of a verdict: 1 where the answer shown first is the better one; 1/2 where none could be read."""
SIMULATED = (4, 8, 16, 32)
REPETITIONS = 2000
SMALL_PAIRS = 30
MAX_CHARS = 1400
"""Maximum length of the answers that the small models read."""

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Verdicts:
    """Verdicts on pairs, `[pairs, judges, orders]`: probability that the first answer of the pair is better.

    Attributes:
        judges: Names.
        values: With the first answer shown first, and with it shown second; both are about the first answer.
        wanted: 1 where the first answer is better, 0 where the second is, `[pairs]`.
        groups: Group of each pair.
    """

    judges: tuple[str, ...]
    values: Floats
    wanted: Floats
    groups: tuple[str, ...]

    def outcomes(self, scores: Floats) -> Outcomes:
        """Scores of the pairs, clustered by group."""
        names = tuple(f"{group}-{i}" for i, group in enumerate(self.groups))
        return Outcomes(names, number_groups(self.groups), scores.reshape(len(names), -1))

    def interval(self, scores: Floats) -> str:
        """A mean in points with its interval, bootstrapped over groups."""
        low, high = percentiles(bootstrap_means(scores, number_groups(self.groups)))
        return f"{100 * scores.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def agreement(win: Floats, wanted: Floats) -> Floats:
    """1 where the likelier answer is the better one, 1/2 for an even verdict."""
    return np.where(win == 0.5, 0.5, ((win > 0.5) == (wanted > 0.5)).astype(float))


def closeness(win: Floats, wanted: Floats) -> Floats:
    """1 minus the squared error of the probability (Brier)."""
    return 1 - (win - wanted) ** 2


def position_bias(verdicts: Floats) -> Floats:
    """How much more often than by its content the answer shown first wins, `[pairs, orders]` to `[pairs]`."""
    return (verdicts[:, 0] + (1 - verdicts[:, 1])) / 2 - 0.5


def is_reversed(verdicts: Floats) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether both orders prefer the same position, `[pairs, orders]` to `[pairs]`."""
    first, second = verdicts[:, 0], verdicts[:, 1]
    return (first != 0.5) & (second != 0.5) & (first != second)


def plurality(values: Floats) -> Floats:
    """The most frequent of several verdicts, `[pairs, verdicts]` to `[pairs]`; an even one if two are as frequent."""
    counts = np.stack([(values == value).sum(axis=1) for value in (0.0, 0.5, 1.0)], axis=1)
    is_single = (counts == counts.max(axis=1, keepdims=True)).sum(axis=1) == 1
    return np.where(is_single, np.array([0.0, 0.5, 1.0])[counts.argmax(axis=1)], 0.5)


# -- recorded verdicts


def preference(row: Row) -> float:
    """1 where most people find the first answer of a pair better, 0 where they find the second, else 1/2."""
    (most, count), *rest = Counter(row["votes"]).most_common()
    return FIRST[most] if not rest or rest[0][1] < count else 0.5


def reviews_of(pools: Path, side: str) -> tuple[Verdicts, dict[str, Floats], dict[str, Floats]]:
    """The cross-reviews with the human majority; all margins and human rates by question.

    Returns:
        Verdicts on the pairs that people decide; for each question the verdicts `[judges, first, second]` with the
        first answer shown first; and the share of the other answers that people find worse, `[answers]`.
    """
    at = {model: i for i, model in enumerate(MODELS)}
    shown: dict[str, Floats] = defaultdict(lambda: np.full((5, 5, 5), np.nan))
    for row in read(pools, side, "prd_reviews"):
        shown[row["question_id"]][at[row["reviewer"]], at[row["model_a"]], at[row["model_b"]]] = FIRST[row["verdict"]]
    liked: dict[str, Floats] = defaultdict(lambda: np.zeros(5))
    values, wanted, groups = [], [], []
    for row in read(pools, side, "prd_human"):
        better = preference(row)
        a, b, question = at[row["model_a"]], at[row["model_b"]], row["question_id"]
        liked[question][a] += better / 4
        liked[question][b] += (1 - better) / 4
        if better != 0.5:
            table_of = shown[question]
            values.append(np.stack([table_of[:, a, b], 1 - table_of[:, b, a]], axis=1))
            wanted.append(better)
            groups.append(question)
    return Verdicts(MODELS, np.array(values), np.array(wanted), tuple(groups)), dict(shown), dict(liked)


def judgebench_of(pools: Path, side: str, judge: str) -> Verdicts:
    """Verdicts of one judge on pairs of which one answer is right."""
    rows = [row for row in read(pools, side, "judgebench") if judge in row["judges"]]
    values = [[[FIRST[row["judges"][judge][0]], 1 - FIRST[row["judges"][judge][1]]]] for row in rows]
    # the second decision is about the swapped pair: its first answer is the second of the pair
    return Verdicts((judge,), np.array(values), np.array([FIRST[row["label"]] for row in rows]), groups_of(rows))


def rewards_of(pools: Path, side: str) -> Verdicts:
    """Reward models as judges: the probability of the first answer by the difference of two rewards, both orders."""
    rows = [row for row in read(pools, side, "judgebench") if row["rewards"]]
    names = sorted(rows[0]["rewards"])
    margins = np.array([[row["rewards"][name][0] - row["rewards"][name][1] for name in names] for row in rows])
    win = 1 / (1 + np.exp(-margins))
    return Verdicts(
        tuple(name.split("/")[-1] for name in names),
        np.stack([win, win], axis=2),
        np.array([FIRST[row["label"]] for row in rows]),
        groups_of(rows),
    )


def groups_of(rows: Iterable[Row]) -> tuple[str, ...]:
    """Groups of pairs from one source question."""
    return tuple(row.get("split_group", row["question_id"]) for row in rows)


# -- tables


def single_judges(sets: Sequence[tuple[str, Verdicts]]) -> str:
    """Each judge by itself: one order against the mean of both."""
    rows = []
    for name, verdicts in sets:
        for j, judge in enumerate(verdicts.judges):
            first, second = verdicts.values[:, j, 0], verdicts.values[:, j, 1]
            mean = (first + second) / 2
            one = (agreement(first, verdicts.wanted) + agreement(second, verdicts.wanted)) / 2
            near = (closeness(first, verdicts.wanted) + closeness(second, verdicts.wanted)) / 2
            rows.append(
                (
                    f"{judge}, {name}",
                    str(len(mean)),
                    verdicts.interval(position_bias(verdicts.values[:, j])),
                    f"{100 * is_reversed(verdicts.values[:, j]).mean():.1f}",
                    f"{100 * (verdicts.values[:, j] == 0.5).mean():.1f}",
                    f"{100 * one.mean():.1f}",
                    verdicts.interval(agreement(mean, verdicts.wanted)),
                    f"{1 - near.mean():.3f}",
                    f"{1 - closeness(mean, verdicts.wanted).mean():.3f}",
                )
            )
    head = ("judge", "pairs", "position bias", "reversed %", "ties %", "one order: agrees %", "both orders: agrees %",
            "one order: Brier", "both orders: Brier")  # fmt: skip
    return table(head, rows)


@dataclass(frozen=True)
class Pooled:
    """What several verdicts on a pair come to, by method; probabilities that the first answer is better, `[pairs]`."""

    verdicts: Verdicts
    methods: Mapping[str, Sequence[Floats]]

    def score(self, method: str, metric: Callable[[Floats, Floats], Floats]) -> Floats:
        """A metric of each pair, the mean over what the method may have seen."""
        mean: Floats = np.mean([metric(win, self.verdicts.wanted) for win in self.methods[method]], axis=0)
        return mean


EXPECTED_BOTH, EXPECTED_ONE = "expected value, both orders", "expected value, one order"
EXPECTED_MIXED = "expected value, two or three verdicts in each order"
MOST_BOTH, MOST_ONE = "most frequent verdict, both orders", "most frequent verdict, one order"

MIXED_ORDERS = tuple(
    tuple(int(j in seconds) for j in range(5)) for size in (2, 3) for seconds in combinations(range(5), size)
)
"""Which of the five reviewers see the second answer first, in all ways of two or three."""


def pooled_reviews(verdicts: Verdicts) -> Pooled:
    """Five reviewers as repeated verdicts of one judge."""
    values = verdicts.values
    return Pooled(
        verdicts,
        {
            "one verdict": [values[:, j, k] for j in range(values.shape[1]) for k in (0, 1)],
            "one reviewer, both orders": [values[:, j].mean(axis=1) for j in range(values.shape[1])],
            MOST_ONE: [plurality(values[:, :, k]) for k in (0, 1)],
            EXPECTED_ONE: [values[:, :, k].mean(axis=1) for k in (0, 1)],
            EXPECTED_MIXED: [
                values[np.arange(len(values))[:, None], range(5), orders].mean(axis=1) for orders in MIXED_ORDERS
            ],
            MOST_BOTH: [plurality(values.reshape(len(values), -1))],
            EXPECTED_BOTH: [values.mean(axis=(1, 2))],
        },
    )


def pooled_rewards(verdicts: Verdicts) -> Pooled:
    """Five reward models, whose scores are graded: their probabilities against the votes they would be."""
    win = verdicts.values[:, :, 0]
    votes = (win > 0.5).astype(float)
    return Pooled(
        verdicts,
        {
            "one model, its choice": [votes[:, j] for j in range(win.shape[1])],
            "one model, its probability": [win[:, j] for j in range(win.shape[1])],
            "majority of the choices": [(votes.mean(axis=1) > 0.5).astype(float)],
            "share of the choices": [votes.mean(axis=1)],
            "mean probability": [win.mean(axis=1)],
        },
    )


def pooled_table(pooled: Pooled) -> str:
    """Agreement and squared error of each method."""
    rows = [
        (name, pooled.verdicts.interval(pooled.score(name, agreement)),
         f"{1 - pooled.score(name, closeness).mean():.3f}")
        for name in pooled.methods
    ]  # fmt: skip
    return table(("method", "agrees %", "Brier"), rows)


def reliability(win: Floats, wanted: Floats) -> str:
    """How often the likelier answer is the better one, by its probability."""
    sure, right = np.maximum(win, 1 - win), agreement(win, wanted)
    edges = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    rows = []
    for low, high in pairwise(edges):
        inside = (sure >= low - 1e-9) & ((sure < high - 1e-9) | (high == 1.0))
        if inside.any():
            rows.append((f"{low:.1f} to {high:.1f}", str(int(inside.sum())), f"{sure[inside].mean():.2f}",
                         f"{right[inside].mean():.2f}"))  # fmt: skip
    return table(("probability of the likelier answer", "pairs", "mean probability", "agrees"), rows)


# -- tournaments


def hold(order: Sequence[int], margin: Callable[[int, int], float]) -> tuple[int, int]:
    """The best candidate by a tournament whose pivot is the first of an order, and its comparisons."""
    tournament = PivotTournament(len(order))
    while pairs := tournament.ask():
        for a, b in pairs:
            tournament.tell((a, b), margin(order[a], order[b]))
    return order[tournament.ranking[0]], tournament.comparisons


def round_robin(order: Sequence[int], margin: Callable[[int, int], float]) -> int:
    """The best candidate by its mean win over all others; of equals the first of an order."""
    sums = dict.fromkeys(order, 0.0)
    for a, b in combinations(order, 2):  # each pair once, also in one order
        sums[a] += margin(a, b)
        sums[b] -= margin(a, b)
    return max(order, key=lambda a: round(sums[a], 9))  # the first of equals


def margin_of(values: Floats, judges: Sequence[int], orders: str) -> Callable[[int, int], float]:
    """Margins of the verdicts of some judges on one question."""

    def margin(a: int, b: int) -> float:
        first = values[judges, a, b].mean() - 0.5
        second = 0.5 - values[judges, b, a].mean()
        return float(first if orders == "one" else (first + second) / 2)

    return margin


ROTATIONS = tuple(tuple((start + i) % 5 for i in range(5)) for start in range(5))
PIVOT_BOTH, PIVOT_ONE = "pivot, both orders", "pivot, one order"
ROBIN_BOTH, ROBIN_ONE = "all pairs, both orders", "all pairs, one order"


@dataclass(frozen=True)
class Tournaments:
    """Choices among five answers, the mean over five orders, whose first is the pivot and wins ties.

    Attributes:
        value: Share of the other answers that people find worse than the choice, `[questions]`, by method.
        comparisons: Mean number of comparisons.
        same: Share of the questions and pivots with the choice of all pairs in both orders.
    """

    value: dict[str, Floats]
    comparisons: dict[str, float]
    same: dict[str, float]


def tournaments_of(shown: Mapping[str, Floats], liked: Mapping[str, Floats], judges: Sequence[int]) -> Tournaments:
    """Tournaments of some judges on all questions."""
    value: dict[str, list[float]] = defaultdict(list)
    counts: dict[str, list[int]] = defaultdict(list)
    same: dict[str, list[float]] = defaultdict(list)
    for question, rate in liked.items():
        best = [round_robin(order, margin_of(shown[question], judges, "both")) for order in ROTATIONS]
        for orders in ("both", "one"):
            margin = margin_of(shown[question], judges, orders)
            pivot, every = {"both": (PIVOT_BOTH, ROBIN_BOTH), "one": (PIVOT_ONE, ROBIN_ONE)}[orders]
            results = {
                pivot: [hold(order, margin) for order in ROTATIONS],
                every: [(round_robin(order, margin), 10) for order in ROTATIONS],
            }
            for name, held in results.items():
                value[name].append(float(np.mean([rate[chosen] for chosen, _ in held])))
                counts[name] += [count for _, count in held]
                same[name] += [float(chosen == first) for (chosen, _), first in zip(held, best, strict=True)]
    return Tournaments(
        {name: np.array(values) for name, values in value.items()},
        {name: float(np.mean(found)) for name, found in counts.items()},
        {name: float(np.mean(found)) for name, found in same.items()},
    )


def tournament_table(by_judge: Mapping[str, Tournaments]) -> str:
    """All tournaments."""
    rows = []
    for judge, found in by_judge.items():
        for name in (ROBIN_BOTH, PIVOT_BOTH, ROBIN_ONE, PIVOT_ONE):
            asked = found.comparisons[name]
            cells = (
                f"{100 * found.value[name].mean():.1f}",
                f"{asked:.2f}",
                f"{asked * (2 if 'both' in name else 1):.1f}",
                f"{100 * found.same[name]:.0f}",
            )
            rows.append((f"{judge}: {name}", *cells))
    return table(("judge and method", "preferred %", "comparisons", "verdicts", "same choice %"), rows)


def simulated(seed: int = 0) -> str:
    """Tournaments of candidates whose strengths are known, by a judge that is biased and sampled."""
    rows = []
    for count in SIMULATED:
        rng = np.random.default_rng(seed)
        found: dict[str, list[tuple[bool, int]]] = defaultdict(list)
        for _ in range(REPETITIONS):
            strength = rng.normal(size=count)
            content = 1 / (1 + np.exp(-2 * (strength[:, None] - strength[None, :])))
            shown_first = np.clip(content + 0.15, 0, 1)  # the answer shown first gains 15 points
            sampled = rng.binomial(8, shown_first) / 8
            best = int(strength.argmax())
            for name, values in (("probabilities", shown_first), ("8 sampled verdicts", sampled)):
                for orders in ("both", "one"):
                    margin = margin_of(values[None], [0], orders)
                    chosen, asked = hold(range(count), margin)
                    found[f"{name}, {orders} order{'s' * (orders == 'both')}: pivot"].append((chosen == best, asked))
                    if count <= 16:
                        every = count * (count - 1) // 2
                        found[f"{name}, {orders} order{'s' * (orders == 'both')}: all pairs"].append(
                            (round_robin(range(count), margin) == best, every)
                        )
        for name in dict.fromkeys(key.partition(":")[0] for key in found):
            cells: list[str] = []
            for method in ("pivot", "all pairs"):
                results = found.get(f"{name}: {method}")
                cells += (
                    ["", ""]
                    if results is None
                    else [
                        f"{100 * np.mean([right for right, _ in results]):.1f}",
                        f"{np.mean([asked for _, asked in results]):.1f}",
                    ]
                )
            rows.append((str(count), name, *cells))
    head = ("candidates", "verdicts", "pivot: best chosen %", "comparisons", "all pairs: best chosen %", "comparisons")
    return table(head, rows)


# -- small models with probabilities


async def read_model(name: str, pools: Path, side: str) -> None:
    """Let a model compare and rate pairs of answers, and store what it says."""
    texts = {(r["question_id"], r["model"]): r for r in read(pools, side, "prd_answers")}
    decided = decided_pairs(pools, side)
    chosen = []
    for row in read(pools, side, "prd_human"):
        pair = [texts[row["question_id"], row[key]] for key in ("model_a", "model_b")]
        if pair_of(row) in decided and all(len(answer["text"]) <= MAX_CHARS for answer in pair):
            chosen.append((row, pair))
    path = STORED / f"{Path(name).name.removesuffix('.gguf')}.jsonl"
    settings = load_settings()
    model = await load_model(name, settings)
    directory = TemporaryDirectory()
    store = await SqliteStore.open(Path(directory.name) / "runs.sqlite3")
    lines = []
    for row, pair in chosen[:SMALL_PAIRS]:
        question = Question(text=pair[0]["question"], kind="text")
        config = RunConfig(question=question, strategy="best-of-n", parameters={}, models={}, seed=0)
        run = Run(f"{row['question_id']}-{row['model_a']}-{row['model_b']}", config, store)
        await store.create_run(run.id, {})
        judge = MeteredModel(model, "judge", run)
        answers = [answer["text"].strip() for answer in pair]
        lines.append(
            {
                "question_id": row["question_id"],
                "model_a": row["model_a"],
                "model_b": row["model_b"],
                "orders": masses_of(await read_verdicts(judge, *comparisons(judge, question, answers))),
                "marks": masses_of(await read_verdicts(judge, ratings(judge, question, run, answers), MARKS)),
            }
        )
        print(f"{len(lines)} of {min(len(chosen), SMALL_PAIRS)}", file=sys.stderr)
    await model.aclose()
    await store.aclose()
    directory.cleanup()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    print(f"wrote {path}")


def pair_of(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """The question and the two models of a row."""
    return row["question_id"], row["model_a"], row["model_b"]


def decided_pairs(pools: Path, side: str) -> dict[tuple[str, str, str], float]:
    """By pair, 1 where most people find the first answer better, 0 where they find the second; ties are left out."""
    rows = read(pools, side, "prd_human")
    return {pair_of(row): better for row in rows if (better := preference(row)) != 0.5}


def comparisons(judge: MeteredModel, question: Question, answers: Sequence[str]) -> tuple[list[Prompt], Sequence[str]]:
    """The prompts that compare two answers in both orders, and the letters of the verdicts."""
    blind = make_blinding((0, 1), question, 0, shuffle=False)
    first, second = blind.letters
    return [
        question_prompt(
            question,
            f"Compare the two answers to this question quoted below. {MATERIAL_NOTICE}\n\n"
            f"{show_answers(blind, dict(enumerate(shown)))}\n\n"
            "Judge correctness first, then completeness and clarity. Ignore length. "
            f"Which answer is better? Reply with a single letter: {first} or {second}.",
            prefix="Answer:" if judge.capabilities.prefix else "",
        )
        for shown in (answers, answers[::-1])
    ], blind.letters


def ratings(judge: MeteredModel, question: Question, run: Run, answers: Sequence[str]) -> list[Prompt]:
    """The prompts that rate answers."""
    return [AnswerJudge(judge, question, run).prompt([answer]) for answer in answers]


def masses_of(verdicts: Sequence[VerdictDistribution | None]) -> list[list[float]]:
    """The probabilities of the labels; none for a verdict that is missing."""
    return [[] if v is None else [round(v.coverage * share, 6) for share in v.shares] for v in verdicts]


def small_model_rows(path: Path, decided: Mapping[tuple[str, str, str], float]) -> tuple[tuple[str, ...], ...]:
    """What a small model's probabilities show, of pairs that people decide."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["wanted"] = decided[pair_of(line)]
    compared_lines = [line for line in lines if all(line["orders"])]
    first = np.array([[m[0] / sum(m) for m in line["orders"]] for line in compared_lines])
    of_pair = np.stack([first[:, 0], 1 - first[:, 1]], axis=1)
    labels = np.array([line["wanted"] for line in compared_lines])
    choices = (of_pair > 0.5).astype(float)
    off = np.array([1 - min(sum(m) for m in line["orders"]) for line in compared_lines])
    one = np.mean([agreement(choices[:, k], labels) for k in (0, 1)], axis=0)
    rated = [line for line in lines if all(line["marks"])]
    means = np.array([[np.dot(range(1, 10), m) / sum(m) for m in line["marks"]] for line in rated])
    likeliest = np.array([[int(np.argmax(m)) + 1 for m in line["marks"]] for line in rated])
    gold = np.array([line["wanted"] for line in rated])

    def of_marks(marks: Floats) -> Floats:
        return np.where(marks[:, 0] == marks[:, 1], 0.5, (marks[:, 0] > marks[:, 1]).astype(float))

    return (
        ("readable comparisons, of pairs", f"{len(compared_lines)} of {len(lines)}"),
        ("mass off the two letters, mean", f"{off.mean():.3f}"),
        ("position bias, in points", f"{100 * (first.mean() - 0.5):+.1f}"),
        ("choice reversed by the order %", f"{100 * (choices[:, 0] != choices[:, 1]).mean():.0f}"),
        ("one order, its choice: agrees %", f"{100 * one.mean():.0f}"),
        ("both orders, most frequent choice: agrees %",
         f"{100 * agreement(choices.mean(axis=1), labels).mean():.0f}"),
        ("both orders, expected value: agrees %", f"{100 * agreement(of_pair.mean(axis=1), labels).mean():.0f}"),
        ("one order, its choice: Brier", f"{np.mean([(choices[:, k] - labels) ** 2 for k in (0, 1)]):.3f}"),
        ("both orders, expected value: Brier", f"{np.mean((of_pair.mean(axis=1) - labels) ** 2):.3f}"),
        ("readable ratings, of pairs", f"{len(rated)} of {len(lines)}"),
        ("likeliest mark: both answers the same %", f"{100 * (likeliest[:, 0] == likeliest[:, 1]).mean():.0f}"),
        ("likeliest mark: agrees %", f"{100 * agreement(of_marks(likeliest), gold).mean():.0f}"),
        ("mean of the nine marks: both answers the same %", f"{100 * (means[:, 0] == means[:, 1]).mean():.0f}"),
        ("mean of the nine marks: agrees %", f"{100 * agreement(of_marks(means), gold).mean():.0f}"),
    )  # fmt: skip


# -- the page


def compare_methods(
    pooled: Pooled, metric: Callable[[Floats, Floats], Floats], pairs: Iterable[tuple[str, str, str]]
) -> list[tuple[str, str, str, PairedComparison]]:
    """Comparisons of two methods on the same pairs."""
    score = {name: pooled.verdicts.outcomes(pooled.score(name, metric)) for name in pooled.methods}
    return [(f"judges/{name}", a, b, compare_paired(score[a], score[b])) for name, a, b in pairs]


def main() -> int:
    """Write the page and the comparisons, or store a model's verdicts."""
    parser = arguments(__doc__)
    parser.add_argument("--read", metavar="MODEL", help="let this model judge pairs, instead of writing the page")
    args = parser.parse_args()
    if args.read:
        asyncio.run(read_model(args.read, args.pools, args.side))
        return 0
    reviews, shown, liked = reviews_of(args.pools, args.side)
    bench = [judgebench_of(args.pools, args.side, name) for name in ("o1-mini-2024-09-12", "claude-3-haiku-20240307")]
    rewards = rewards_of(args.pools, args.side)
    from_reviews, from_rewards = pooled_reviews(reviews), pooled_rewards(rewards)
    of_agreement = compared(
        [
            *compare_methods(
                from_reviews,
                agreement,
                [
                    ("expected-vs-most-frequent", EXPECTED_BOTH, MOST_BOTH),
                    ("both-orders-vs-one", EXPECTED_BOTH, EXPECTED_ONE),
                    ("mixed-orders-vs-one", EXPECTED_MIXED, EXPECTED_ONE),
                    ("one-reviewer-both-orders-vs-one-verdict", "one reviewer, both orders", "one verdict"),
                ],
            ),
            *compare_methods(
                from_rewards,
                agreement,
                [("mean-probability-vs-majority", "mean probability", "majority of the choices")],
            ),
        ],
        metric="agreement with the label",
    )
    of_closeness = compared(
        [
            *compare_methods(
                from_reviews,
                closeness,
                [
                    ("brier-expected-vs-most-frequent", EXPECTED_BOTH, MOST_BOTH),
                    ("brier-both-orders-vs-one", EXPECTED_BOTH, EXPECTED_ONE),
                    ("brier-mixed-orders-vs-one", EXPECTED_MIXED, EXPECTED_ONE),
                    ("brier-one-reviewer-both-orders-vs-one-verdict", "one reviewer, both orders", "one verdict"),
                ],
            ),
            *compare_methods(
                from_rewards,
                closeness,
                [
                    ("brier-probability-vs-choice", "one model, its probability", "one model, its choice"),
                    ("brier-mean-probability-vs-share", "mean probability", "share of the choices"),
                ],
            ),
        ],
        metric="1 minus the squared error",
    )
    everyone = tuple(range(5))
    by_judge = {"all five reviewers": tournaments_of(shown, liked, everyone)}
    by_judge |= {f"{name} alone": tournaments_of(shown, liked, [i]) for i, name in enumerate(MODELS)}
    questions = tuple(liked)

    def chosen(judge: str, method: str) -> Outcomes:
        return Outcomes(questions, number_groups(questions), by_judge[judge].value[method][:, None])

    def mean_of_singles(method: str) -> Outcomes:
        values = np.mean([found.value[method] for name, found in by_judge.items() if "alone" in name], axis=0)
        return Outcomes(questions, number_groups(questions), values[:, None])

    every = "all five reviewers"
    of_choice = compared(
        [
            (
                "judges/all-pairs-vs-pivot",
                f"five reviewers: {ROBIN_BOTH}",
                PIVOT_BOTH,
                compare_paired(chosen(every, ROBIN_BOTH), chosen(every, PIVOT_BOTH)),
            ),
            (
                "judges/single-all-pairs-vs-pivot",
                f"one reviewer: {ROBIN_BOTH}",
                PIVOT_BOTH,
                compare_paired(mean_of_singles(ROBIN_BOTH), mean_of_singles(PIVOT_BOTH)),
            ),
            (
                "judges/single-pivot-both-orders-vs-one",
                f"one reviewer: {PIVOT_BOTH}",
                PIVOT_ONE,
                compare_paired(mean_of_singles(PIVOT_BOTH), mean_of_singles(PIVOT_ONE)),
            ),
            (
                "judges/single-pivot-both-orders-vs-all-pairs-one",
                f"one reviewer: {PIVOT_BOTH}",
                ROBIN_ONE,
                compare_paired(mean_of_singles(PIVOT_BOTH), mean_of_singles(ROBIN_ONE)),
            ),
        ],
        metric="share of the other answers to which people prefer the choice",
    )
    comparisons = [*of_agreement, *of_closeness, *of_choice]
    files = sorted(STORED.glob("*.jsonl"))
    text = page(
        args,
        reviews,
        bench,
        rewards,
        from_reviews,
        from_rewards,
        by_judge,
        of_agreement,
        of_closeness,
        of_choice,
        100 * float(np.mean([rate.max() for rate in liked.values()])),
        files,
    )
    path = args.docs / "results" / "judges.md"
    path.write_text(text, encoding="utf-8")
    write_comparisons(args.docs / "results" / "comparisons" / "judges.json", comparisons)
    print(f"wrote {path}")
    return 0


def page(
    args: Any,
    reviews: Verdicts,
    bench: Sequence[Verdicts],
    rewards: Verdicts,
    from_reviews: Pooled,
    from_rewards: Pooled,
    by_judge: Mapping[str, Tournaments],
    of_agreement: Sequence[Comparison],
    of_closeness: Sequence[Comparison],
    of_choice: Sequence[Comparison],
    best_possible: float,
    files: Sequence[Path],
) -> str:
    """The page."""
    decided = decided_pairs(args.pools, args.side)
    small = [(path.stem, small_model_rows(path, decided)) for path in files]
    small_table = table(
        ("", *(name for name, _ in small)),
        [(label, *(rows[i][1] for _, rows in small)) for i, (label, _) in enumerate(small[0][1])] if small else [],
    )
    expected = from_reviews.methods[EXPECTED_BOTH][0]
    prints = ", ".join(
        f"`{fingerprint(args.pools, args.side, name)}`" for name in ("prd_reviews", "prd_human", "judgebench")
    )
    bench_sets = [("JudgeBench", verdicts) for verdicts in bench]
    by_id = {c.id.partition("/")[2]: c for c in (*of_agreement, *of_closeness, *of_choice)}
    agreed = {name: 100 * from_reviews.score(name, agreement).mean() for name in from_reviews.methods}
    errors = {name: 1 - from_reviews.score(name, closeness).mean() for name in from_reviews.methods}
    rewarded = {name: 1 - from_rewards.score(name, closeness).mean() for name in from_rewards.methods}
    by_reviewer = np.moveaxis(reviews.values, 1, 0)
    reversals = [100 * is_reversed(verdicts).mean() for verdicts in by_reviewer]
    biases = [100 * position_bias(verdicts).mean() for verdicts in by_reviewer]
    every = by_judge["all five reviewers"]
    singles = [found for name, found in by_judge.items() if "alone" in name]

    def of_singles(method: str) -> float:
        return float(100 * np.mean([found.value[method] for found in singles]))

    held = np.mean([found.comparisons[PIVOT_BOTH] for found in singles])
    return f"""# Judges as distributions

**Which answer recorded judges prefer depends on the order in which they see the two. The mean of both orders agrees
with people more often, at twice the verdicts; with as many verdicts, no difference is shown. Expected values have
smaller errors as probabilities; that they choose other answers than the most frequent verdict is not shown to help. A
pivot needs about half of the comparisons of five answers, and a single unsure judge pays for that.** No recorded judge
has token probabilities: expected values are means over recorded verdicts here.

- **Both orders.** Five reviewers of open answers have a position bias of {min(biases):+.0f} to {max(biases):+.0f}
  points, and {min(reversals):.0f} to {max(reversals):.0f} % of their verdicts are reversed when the answers are
  swapped. The mean of both orders agrees with people on
  {agreed["one reviewer, both orders"]:.1f} % of the pairs, one verdict on {agreed["one verdict"]:.1f} %
  ({finding(by_id["one-reviewer-both-orders-vs-one-verdict"])}); over all five reviewers it is
  {agreed[EXPECTED_BOTH]:.1f} % and, in one order, {agreed[EXPECTED_ONE]:.1f} %
  ({finding(by_id["both-orders-vs-one"])}). That takes twice the verdicts. With as many, two or three of the five in
  each order, it is {agreed[EXPECTED_MIXED]:.1f} % ({finding(by_id["mixed-orders-vs-one"])}): the biases of these
  five have both signs, so that they cancel out in one order too. Smaller squared errors than in one order are refuted
  there ({finding(by_id["brier-mixed-orders-vs-one"])}).
- **Expected value against the most frequent verdict.** On the same ten verdicts both agree with people alike
  ({finding(by_id["expected-vs-most-frequent"])}), and the mean probability of five reward models chooses the right
  answer as often as the majority of their choices, as far as these data can tell
  ({finding(by_id["mean-probability-vs-majority"])}).
- **Probabilities.** The squared error (Brier) of the expected value is {errors[EXPECTED_BOTH]:.3f}, that of the most
  frequent verdict {errors[MOST_BOTH]:.3f} ({finding(by_id["brier-expected-vs-most-frequent"])}), that of one verdict
  {errors["one verdict"]:.3f}. Of reward models, which have probabilities, the mean has
  {rewarded["mean probability"]:.3f} and the share of their choices {rewarded["share of the choices"]:.3f}
  ({finding(by_id["brier-mean-probability-vs-share"])}). That a mean of verdicts has a smaller squared error than one
  of them follows by arithmetic; that it has a smaller one than the most frequent verdict does not.
- **Tournaments with a pivot.** With the verdicts of all five reviewers, {every.comparisons[PIVOT_BOTH]:.1f} of 10
  comparisons choose an answer that people prefer to {100 * every.value[PIVOT_BOTH].mean():.1f} % of the others, all 10
  one with {100 * every.value[ROBIN_BOTH].mean():.1f} % ({finding(by_id["all-pairs-vs-pivot"])}). With one reviewer
  alone, whose verdicts in both orders often cancel out, {held:.1f} comparisons have
  {of_singles(PIVOT_BOTH):.1f} % and all 10 have {of_singles(ROBIN_BOTH):.1f} %
  ({finding(by_id["single-all-pairs-vs-pivot"])}). Against all pairs in one order, which take about as many verdicts, it
  is {finding(by_id["single-pivot-both-orders-vs-all-pairs-one"])}.

Everything is measured on the development half; to be confirmed on the held-out half.

## Judges by themselves

Position bias: how much more often than by its content the answer shown first wins, in points. Reversed: both orders
prefer the same position. A verdict without a preference counts as half agreement. Brier: squared error of 1, 1/2 or 0,
and of the mean of two.

{single_judges([("open answers", reviews), *bench_sets])}

## Several verdicts on one pair

The five reviewers of open answers, as repeated verdicts of one judge; people prefer one of the two answers:

{pooled_table(from_reviews)}

Five reward models on {len(rewards.wanted)} pairs of JudgeBench, of which one answer is right; the probability is the
sigmoid of the difference of two rewards. An outcome model has no order:

{pooled_table(from_rewards)}

Agreement:

{comparisons_table(of_agreement)}

1 minus the squared error:

{comparisons_table(of_closeness)}

Calibration of the expected value over ten verdicts:

{reliability(expected, reviews.wanted)}

## Tournaments

Each of the five answers to {len(every.value[PIVOT_BOTH])} questions is once the pivot, and the first of equals in the
comparison of all pairs. "Preferred" is the share of the other answers to which the human majority prefers the chosen
one, ties half; its maximum is {best_possible:.1f} %, and a random answer has 50 %. In one order the challenger, or the
first of the pair, is shown first.

{tournament_table(by_judge)}

{comparisons_table(of_choice)}

Simulated, since no recorded question has more than five answers: strengths are normal, log-odds of a comparison are
twice their difference, and the answer shown first gains 15 points. {REPETITIONS:,} tournaments each. With exact
probabilities in both orders the best candidate wins, as it must; in one order it often does not, even of all pairs.

{simulated()}

## Small models with token probabilities

Mechanics alone: {SMALL_PAIRS} pairs of open answers, too few to tell methods apart, judged by models that hardly tell
answers apart. They give the letters most of the probability, and both always prefer one position. The likeliest mark is
mostly the same for both answers of a pair, so that it decides little; the mean of the marks seldom is.

{small_table}

## How it was measured

<!-- not run: it measures for hours -->
```bash
python benchmarks/judges.py --pools POOLS --docs docs
python benchmarks/judges.py --pools POOLS --read local/smollm2-135m
```

Tests are exact where there are up to 20 groups that differ, else by {100_000:,} sign flips; groups are questions;
Holm's correction within each of the three tables of comparisons; "shown" needs an adjusted p below 0.05. Fingerprints:
{prints}.

## Limits

Verdicts of models of 2023 and 2024, without token probabilities: five different reviewers stand for repeated calls of
one judge, and differ more than these would. Their verdicts have three values, so ties are frequent; a judge with
probabilities has next to none. Reward models and JudgeBench are {len(rewards.wanted)} pairs. Ratings on a scale are
checked on the small models alone. Nothing here measures `best-of-n` or `edgejury` with a strong judge.
"""


if __name__ == "__main__":
    sys.exit(main())
