"""Cascades and question routers on recorded answers: quality against cost.

    python benchmarks/recorded/routing.py --pools DIR --docs docs --vectors FILE.npz

The cascade is the rule of `cascade`: the share of samples that agree is the confidence. The routers are those of
`question-router` and `auto`: their features of a question, its embedding by the default embedding model, their fits
with the choice of complexity. A router is always fitted without the questions that it is measured on. `--vectors` is a
file of the questions' embeddings; those that it lacks are computed and added, which takes minutes to hours on a
processor.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from data import Row, arguments, fingerprint, read

sys.path.append(str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[2] / "training" / "routers"))

from arm_table import ArmSpec, ArmTable
from auto_training import fit_arms as fit_auto
from auto_training import predict_arms
from fitting import (
    QuestionSignals,
    feature_matrix,
    fit_logistic,
    fit_right,
    make_space,
)
from non_inferiority import NonInferiority, non_inferiority
from policies import (
    PredictedArms,
    at_cost,
    best_random_mix,
    choose_arms,
    policies_of,
    single_policies,
)
from reason.core.blas_threads import one_blas_thread
from reason.core.files import question_digest
from reason.core.settings import load_settings
from reason.core.types import Candidate, Question
from reason.evals.calibration import assign_folds
from reason.evals.statistics.outcomes import Outcomes, number_groups
from reason.evals.statistics.paired import PairedComparison, compare_paired
from reason.reasoning.sampling import SampleSet
from reason.reasoning.voting.self_consistency import majority_solution
from reason.routers.cascade import belief_in, reason_for_large
from reason.routers.features import LinearModel, QuestionFeatures, named_features
from reason.routers.router_files import probability_of
from reason.serving.encoders.embeddings import load_embedding_model
from reporting import Section, compared, comparisons_table, finding, table, write_results
from scipy.special import expit

FOLDS = 5
SEEDS = range(100)
THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
MARGIN = 0.01
"""Loss of accuracy that a cascade may have."""
NEIGHBOURS = 40
PENALTY = 300.0
"""Of the plain logistic regression over the complete embedding."""

# US dollars for 1,000 prompt and completion tokens, OpenAI's list prices of July 2023
SMALL_PRICE, LARGE_PRICE = (0.0015, 0.002), (0.03, 0.06)
PROMPT_TOKENS, COMPLETION_TOKENS = 1000, 100
"""Assumed length of a prompt with examples, and of a chain: the pool has neither."""

SMALL, LARGE = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
MMLU_QUESTIONS = 1500
SUITE_MMLU = 400
"""Questions of MMLU that are used, those with the smallest SHA-256 of their text: of RouteLLM's, and of each side of
the seven models'."""
CHOICES = ("mmlu", "arc_challenge", "arc_easy")
IN_DISTRIBUTION = ("mmlu", "gsm8k", "arc_challenge", "arc_easy", "humaneval")

Floats = np.ndarray[Any, np.dtype[np.float64]]
Result = tuple[str, str, str, PairedComparison | NonInferiority]


# -- the cascade on DATE


class NoEvents:
    """Stands for the run of a vote: no one listens."""

    def emit(self, event: object) -> None:
        """Drop an event."""


@dataclass(frozen=True)
class Cascaded:
    """A cascade on all questions under each seed.

    Attributes:
        confidence: Of the small model's vote, `[questions, seeds]`.
        small: Whether the vote is right, `[questions, seeds]`.
        escalated: Whether the large model is called, by threshold `[questions, seeds]`.
    """

    confidence: Floats
    small: Floats
    escalated: dict[float, Floats]


def cascade_of(samples: Sequence[Mapping[str, Sequence[Row]]], counts: Mapping[str, int]) -> Cascaded:
    """Self-consistency of the small model over samples of each prompt, and the decisions of `cascade`.

    Args:
        samples: The samples of each question by prompt.
        counts: Samples drawn of each prompt.
    """
    shape = (len(samples), len(SEEDS))
    confidence, small = np.zeros(shape), np.zeros(shape)
    escalated = {threshold: np.zeros(shape) for threshold in THRESHOLDS}
    for i, by_prompt in enumerate(samples):
        rows = {p: [(row, Candidate(text="", answer=row["answer"])) for row in by_prompt[p]] for p in counts}
        for seed in SEEDS:
            rng = np.random.default_rng([seed, i])
            pairs = [rows[p][int(j)] for p, n in counts.items() for j in rng.permutation(len(rows[p]))[:n]]
            drawn = [row for row, _ in pairs]
            classes: dict[str, list[int]] = defaultdict(list)
            for position, row in enumerate(drawn):
                if row["answer"] is not None:
                    classes[row["answer"]].append(position)
            found = SampleSet(candidates=[candidate for _, candidate in pairs], weights=[1.0] * len(drawn))
            solution = majority_solution(found, list(classes.values()), NoEvents(), {})
            belief = belief_in(solution)
            assert solution.chosen is not None
            assert belief.value is not None
            confidence[i, seed] = belief.value
            small[i, seed] = drawn[solution.chosen]["correct"]
            for threshold, called in escalated.items():
                called[i, seed] = bool(reason_for_large(solution, belief, threshold))
    return Cascaded(confidence, small, escalated)


def relative_cost(escalated: float, samples: int, prompts: int, large_samples: int, *, billed_once: bool) -> float:
    """Dollars of a cascade, those of the large model alone being 1.

    Args:
        samples: Samples of the small model.
        prompts: Its different prompts.
        billed_once: Whether the prompt of several samples is billed once, as in one request, or with every sample.
    """

    def dollars(price: tuple[float, float], n: int, kinds: int) -> float:
        return price[0] * PROMPT_TOKENS * (kinds if billed_once else n) + price[1] * COMPLETION_TOKENS * n

    large = dollars(LARGE_PRICE, large_samples, 1)
    return escalated + dollars(SMALL_PRICE, samples, prompts) / large


def date_section(rows: Sequence[Row]) -> Section:
    """Cascades from GPT-3.5 to GPT-4."""
    small: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    large: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["model"] == "gpt-3.5-turbo" and row["temperature"] == "unstated":
            small[row["question_id"]][row["prompt"]].append(row)
        elif row["model"] == "gpt-4" and row["prompt"] == "cot1":
            large[row["question_id"]][row["temperature"]].append(row)
    names = tuple(small)
    premises = [small[q]["cot1"][0]["split_group"] for q in names]
    greedy = np.array([float(large[q]["0"][0]["correct"]) for q in names])
    clusters = number_groups(premises)

    def scored(values: Floats) -> Outcomes:
        return Outcomes(names, clusters, values if values.ndim == 2 else values[:, None])

    mixes = {
        "20 CoT": {"cot1": 20},
        "20 PoT": {"pot1": 20},
        "10 CoT + 10 PoT": {"cot1": 10, "pot1": 10},
        "5 CoT + 5 PoT": {"cot1": 5, "pot1": 5},
        "2 CoT + 2 PoT": {"cot1": 2, "pot1": 2},
    }
    fold = assign_folds(premises, FOLDS, 0)
    lines, results, figures = [], [], {}
    for name, counts in mixes.items():
        found = cascade_of([small[q] for q in names], counts)
        routed = {t: np.where(called > 0, greedy[:, None], found.small) for t, called in found.escalated.items()}
        chosen, calls = np.zeros(found.small.shape), np.zeros(found.small.shape)
        picked = []
        for number in range(FOLDS):
            rest, held = fold != number, fold == number
            target = greedy[rest].mean()
            good = [t for t in THRESHOLDS if routed[t][rest].mean() >= target]
            best = good[0] if good else THRESHOLDS[-1]
            picked.append(best)
            chosen[held], calls[held] = routed[best][held], found.escalated[best][held]
        n, kinds = sum(counts.values()), len(counts)
        share = float(calls.mean())
        random_same = share * greedy[:, None] + (1 - share) * found.small
        cost = [relative_cost(share, n, kinds, 1, billed_once=once) for once in (True, False)]
        curve = ", ".join(
            f"{t:g}: {100 * routed[t].mean():.1f} at {100 * found.escalated[t].mean():.0f}"
            for t in (0.4, 0.6, 0.8, 1.0)
        )
        lines.append(
            (
                name,
                f"{100 * found.small.mean():.1f}",
                f"{100 * chosen.mean():.1f}",
                f"{100 * share:.1f}",
                f"{100 * random_same.mean():.1f}",
                f"{100 * cost[0]:.0f}",
                f"{100 * cost[1]:.0f}",
                f"{min(picked):g} to {max(picked):g}" if min(picked) < max(picked) else f"{picked[0]:g}",
                curve,
            )
        )
        figures |= {f"{name} right": float(chosen.mean()), f"{name} share": share, f"{name} cost": cost[0]}
        figures |= {f"{name} cost each": cost[1]}
        prefix = f"recorded-routing/date-{name.lower().replace(' + ', '-').replace(' ', '-')}"
        results += [
            (
                f"{prefix}-vs-gpt4",
                f"cascade of {name}",
                "GPT-4",
                non_inferiority(scored(chosen), scored(greedy), MARGIN),
            ),
            (
                f"{prefix}-vs-random",
                f"cascade of {name}",
                "random calls at its rate",
                compare_paired(scored(chosen), scored(random_same)),
            ),
        ]
    figures["gpt-4"] = float(greedy.mean())
    comparisons = compared(results)
    head = (
        "small model's samples",
        "its vote %",
        "cascade %",
        "GPT-4 calls %",
        "random calls, same share %",
        "dollars, prompt billed once, % of GPT-4",
        "dollars, prompt billed with each sample, % of GPT-4",
        "threshold",
        "correct % at GPT-4 calls %, by threshold",
    )
    text = (
        f"{table(head, lines)}\n\n"
        f"{len(names)} questions on {len(set(premises))} premises, {len(SEEDS)} draws of the samples. GPT-4 "
        "(greedy, one "
        f"call) has {100 * greedy.mean():.1f} %. The threshold of a premise is the smallest that reaches GPT-4's "
        "accuracy "
        f"on the premises of the four other folds. Tokens are not recorded. Dollars take OpenAI's list prices of July "
        f"2023 (for 1,000 prompt and completion tokens {SMALL_PRICE[0]} and {SMALL_PRICE[1]} for GPT-3.5-turbo, "
        f"{LARGE_PRICE[0]} and {LARGE_PRICE[1]} for GPT-4) and **assume** {PROMPT_TOKENS} prompt tokens with the "
        "examples "
        f"and {COMPLETION_TOKENS} tokens a chain for both models.\n\n{comparisons_table(comparisons)}"
    )
    return Section(text, comparisons, figures)


# -- embeddings and tables


def key_of(text: str) -> str:
    """The name of a text in the file of vectors."""
    return hashlib.sha256(text.encode()).hexdigest()


def smallest(rows: Iterable[Row], count: int) -> list[Row]:
    """The rows whose questions have the smallest SHA-256."""
    return sorted(rows, key=lambda row: key_of(row["question"]))[:count]


async def vectors_of(texts: Sequence[str], path: Path) -> tuple[dict[str, Any], str, str]:
    """The embedding of each text by key, the model's name and its identity; the file is extended."""
    model = await load_embedding_model(None, load_settings())
    known: dict[str, Any] = {}
    if path.exists():  # noqa: ASYNC240 (nothing else runs)
        stored = np.load(path)
        if str(stored["identity"]) == model.identity:
            known = dict(zip(map(str, stored["digests"]), stored["vectors"], strict=True))
    missing = sorted({text for text in texts if key_of(text) not in known}, key=len)
    for start in range(0, len(missing), 200):
        part = missing[start : start + 200]
        known |= dict(zip(map(key_of, part), await model.embed(part), strict=True))
        np.savez(path, digests=np.array(list(known)), vectors=np.array(list(known.values())), identity=model.identity)
        print(f"embedded {start + len(part)} of {len(missing)} questions", file=sys.stderr)
    await model.aclose()
    return known, model.name, model.identity


def table_of(rows: Sequence[Row], right: Floats, cost: Floats, arms: Sequence[str]) -> ArmTable:
    """Recorded rows as the table that routers are fitted to.

    Args:
        right: `[rows, arms]`.
        cost: `[rows, arms]`; stands for tokens.
    """
    digests = tuple(question_digest(row["question"]) for row in rows)
    role_of = {0: "small"} if len(arms) == 2 else {}
    return ArmTable(
        questions=tuple(Question(text=row["question"]) for row in rows),
        digests=digests,
        groups=tuple(row.get("split_group", d) for row, d in zip(rows, digests, strict=True)),
        arms=tuple(
            ArmSpec("cot", {"recorded": name}, role_of.get(i, "main"), (), None, 1.0, 0.0)
            for i, name in enumerate(arms)
        ),
        samples=np.stack([right, cost, cost], axis=-1)[:, :, None],
        models=dict.fromkeys(("main", "small"), "recorded"),
        engines=dict.fromkeys(("main", "small"), "recorded"),
        runs=(),
        datasets={},
        seeds=(0,),
    )


@dataclass(frozen=True)
class Embedded:
    """Vectors of all questions."""

    vectors: Mapping[str, Any]
    name: str
    identity: str

    def signals(self, rows: Sequence[Row]) -> list[QuestionFeatures]:
        """The features of questions, as `question-router` sees them without the model's first-token entropy."""
        return [
            QuestionFeatures(
                named_features(Question(text=row["question"])),
                None,
                tuple(round(float(x), 6) for x in self.vectors[key_of(row["question"])]),
            )
            for row in rows
        ]

    def gathered(self, signals: Sequence[QuestionFeatures]) -> QuestionSignals:
        """Signals with their embedding model."""
        return QuestionSignals(tuple(signals), self.name, self.identity)


def matrix_of(signals: Sequence[QuestionFeatures]) -> Floats:
    """The vectors, `[questions, dimensions]`."""
    return np.array([s.vector for s in signals])


def by_neighbours(train: Floats, targets: Floats, test: Floats) -> Floats:
    """Mean target of the nearest training questions by cosine, `[questions, ...]`."""
    nearest = np.argpartition(-(test @ train.T), NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    result: Floats = targets[nearest].mean(axis=1)
    return result


def by_regression(train: Floats, targets: Floats, test: Floats) -> Floats:
    """Plain logistic regression over the complete embedding, `[questions]`."""
    mean, scale = train.mean(axis=0), train.std(axis=0) + 1e-9
    b, w = fit_logistic((train - mean) / scale, targets, PENALTY)
    result: Floats = expit(b + ((test - mean) / scale) @ w)
    return result


def needed_of(table: ArmTable) -> Floats:
    """The probability that the large model is right and the small one is not, `[questions]`; seeds are independent."""
    result: Floats = table.right[:, 1] * (1 - table.right[:, 0])
    return result


def fit_needed(
    table: ArmTable, signals: Sequence[QuestionFeatures], gathered: QuestionSignals, folds: int
) -> tuple[LinearModel, Floats]:
    """The log-odds that the large model is needed, and each question's probability by a fit without its fold."""

    def fit(rows: Sequence[int]) -> tuple[Any, LinearModel]:
        own = [signals[j] for j in rows]
        space = make_space(own, embedding=gathered.embedding, embedding_identity=gathered.embedding_identity)
        return space, fit_right(space, feature_matrix(space, own), needed[rows], [table.groups[j] for j in rows])

    fold, needed, crossed = assign_folds(table.groups, folds), needed_of(table), np.empty(len(table.questions))
    with one_blas_thread():
        for i in range(folds):
            space, line = fit(np.flatnonzero(fold != i).tolist())
            for j in np.flatnonzero(fold == i).tolist():
                crossed[j] = probability_of(line.value(space, space.row(signals[j])))
        _, line = fit(range(len(signals)))
    # a constant predicts the same for all questions; the differences between its folds are noise
    return line, np.full(len(crossed), probability_of(line.intercept)) if line.constant else crossed


# -- two models


def shares_routed(chances: Floats) -> Floats:
    """For each question the share of all rates at which it goes to the large model; ties share their mean."""
    n = len(chances)
    order = np.argsort(-chances, kind="stable")
    position = np.empty(n)
    position[order] = np.arange(n)
    for value in np.unique(chances):
        same = chances == value
        position[same] = position[same].mean()
    result: Floats = 1 - (position + 0.5) / n
    return result


def calls_for(chances: Floats, small: Floats, large: Floats, part: float) -> float:
    """Fewest calls of the large model, as a share, that recover this part of the gap."""
    order = np.argsort(-chances, kind="stable")
    gained = np.concatenate([[0.0], np.cumsum((large - small)[order])])
    reached = np.flatnonzero(gained >= part * gained[-1])
    return float(reached[0]) / len(chances)


def apgr(chances: Floats, small: Floats, large: Floats) -> float:
    """Mean part of the gap that is recovered, over all rates: 0.5 at random."""
    d = large - small
    return float((d * shares_routed(chances)).mean() / d.mean())


def routellm_section(dataset: str, rows: Sequence[Row], embedded: Embedded, published: str) -> Section:
    """Mixtral or GPT-4, by cross-validation."""
    small = np.array([float(row["correct"][SMALL]) for row in rows])
    large = np.array([float(row["correct"][LARGE]) for row in rows])
    arms = table_of(rows, np.column_stack([small, large]), np.column_stack([0 * small, 1 + 0 * large]), (SMALL, LARGE))
    signals = embedded.signals(rows)
    gathered, vectors = embedded.gathered(signals), matrix_of(signals)
    needed = needed_of(arms)
    fold = assign_folds(arms.groups, FOLDS, 0)
    line, crossed = fit_needed(arms, signals, gathered, FOLDS)
    chances: dict[str, Floats] = {"question-router": crossed}
    near, plain = np.empty(len(rows)), np.empty(len(rows))
    for number in range(FOLDS):
        held, rest = fold == number, fold != number
        near[held] = by_neighbours(vectors[rest], needed[rest], vectors[held])
        plain[held] = by_regression(vectors[rest], needed[rest], vectors[held])
    chances[f"mean of the {NEIGHBOURS} nearest questions"] = near
    chances["logistic regression over the embedding"] = plain
    chances["length of the question"] = np.array([float(len(row["question"])) for row in rows])
    chances["oracle"] = large - small
    clean = np.array([not row["contaminated"] for row in rows])
    lines = []
    for name, values in chances.items():
        lines.append(
            (
                name,
                f"{apgr(values, small, large):.3f}",
                *(f"{100 * calls_for(values, small, large, part):.1f}" for part in (0.5, 0.8)),
                f"{apgr(values[clean], small[clean], large[clean]):.3f}",
            )
        )
    lines.insert(0, ("random", "0.500", "50.0", "80.0", "0.500"))

    def over_rates(values: Floats) -> Outcomes:
        scores = small + (large - small) * shares_routed(values)
        return Outcomes(tuple(row["question_id"] for row in rows), arms.clusters, scores[:, None])

    at_random = over_rates(np.zeros(len(rows)))
    router = over_rates(chances["question-router"])
    prefix = f"recorded-routing/routellm-{dataset}"
    comparisons = compared(
        [
            (f"{prefix}-vs-random", f"{dataset}: question-router", "random calls", compare_paired(router, at_random)),
            (
                f"{prefix}-vs-neighbours",
                f"{dataset}: question-router",
                "nearest questions",
                compare_paired(router, over_rates(near)),
            ),
            (
                f"{prefix}-vs-regression",
                f"{dataset}: question-router",
                "logistic regression",
                compare_paired(router, over_rates(plain)),
            ),
            (
                f"{prefix}-vs-length",
                f"{dataset}: question-router",
                "length of the question",
                compare_paired(router, over_rates(chances["length of the question"])),
            ),
        ],
        metric="accuracy, mean over all rates",
    )
    text = (
        f"{table(('router', 'APGR', 'CPT(50 %)', 'CPT(80 %)', 'APGR without contaminated'), lines)}\n\n"
        f"{len(rows):,} questions, {int((~clean).sum())} of them marked as near RouteLLM's training data; Mixtral "
        f"{100 * small.mean():.2f} %, GPT-4 {100 * large.mean():.2f} %. {published}\n\n{comparisons_table(comparisons)}"
    )
    figures = {name: apgr(values, small, large) for name, values in chances.items()}
    figures["components"] = float(len(line.components))
    figures["constant"] = float(line.constant)
    figures["half"] = calls_for(chances["question-router"], small, large, 0.5)
    return Section(text, comparisons, figures)


# -- many models


def suite_section(name: str, rows: Sequence[Row], embedded: Embedded, *, priced: bool, published: str) -> Section:
    """Several models, fitted on the source's training rows and measured on its test rows."""
    train = [row for row in rows if row["source_split"] == "train"]
    test = [row for row in rows if row["source_split"] == "test"]
    models = tuple(sorted(train[0]["scores"]))

    def scores(some: Sequence[Row]) -> Floats:
        return np.array(
            [
                [
                    float(row["scores"][m] > 0) if not priced and row["dataset"] in CHOICES else float(row["scores"][m])
                    for m in models
                ]
                for row in some
            ]
        )

    def costs(some: Sequence[Row]) -> Floats:
        # millionths of a dollar, so that logarithms of 1 + cost are far from 0
        return np.array([[1e6 * row["costs"][m] if priced else 1.0 for m in models] for row in some])

    fitted, measured = (table_of(some, scores(some), costs(some), models) for some in (train, test))
    known, asked = embedded.signals(train), embedded.signals(test)
    gathered = embedded.gathered(known)
    with one_blas_thread():
        space = make_space(known, embedding=gathered.embedding, embedding_identity=gathered.embedding_identity)
        arms = fit_auto(fitted, space, feature_matrix(space, known))
        predicted = predict_arms(arms, space, asked)
    vectors, targets = matrix_of(asked), fitted.right
    near = PredictedArms(by_neighbours(matrix_of(known), targets, vectors), predicted.cost)
    plain = PredictedArms(
        np.column_stack([by_regression(matrix_of(known), targets[:, a], vectors) for a in range(len(models))]),
        predicted.cost,
    )
    own = np.array([row["dataset"] for row in train])
    alias = {"gsm8k": "gsm8k_train"}
    by_set = np.array(
        [
            fitted.right[own == alias.get(row["dataset"], row["dataset"])].mean(axis=0)
            if (own == alias.get(row["dataset"], row["dataset"])).any()
            else fitted.right.mean(axis=0)
            for row in test
        ]
    )
    index = np.arange(len(test))

    def taken(values: Floats) -> Floats:
        result: Floats = measured.right[index, values.argmax(axis=1)]
        return result

    single = int(fitted.right.mean(axis=0).argmax())
    policies: dict[str, Floats] = {
        "`auto`'s arms, the most likely": measured.right[index, choose_arms(predicted, 0.0)],
        f"mean of the {NEIGHBOURS} nearest questions": taken(near.right),
        "logistic regression over the embedding": taken(plain.right),
        "best model of each data set in training": taken(by_set),
        f"best single model in training ({models[single].rpartition('/')[2]})": measured.right[:, single],
        "random": measured.right.mean(axis=1),
        "oracle": measured.right.max(axis=1),
    }
    sets = list(dict.fromkeys(row["dataset"] for row in test))
    of_set = np.array([row["dataset"] for row in test])
    inside = np.isin(of_set, IN_DISTRIBUTION)
    lines = []
    for label, values in policies.items():
        cells = [f"{100 * values[of_set == s].mean():.1f}" for s in sets]
        ends = [
            np.mean([values[of_set == s].mean() for s in sets if (s in IN_DISTRIBUTION) == w]) for w in (True, False)
        ]
        means = [f"{100 * values.mean():.2f}"] if priced else [f"{100 * end:.2f}" for end in ends]
        lines.append((label, *means, *cells))
    best = [f"{100 * measured.right[of_set == s].mean(axis=0).max():.1f}" for s in sets]
    lines.append(("best single model of each column, in hindsight", *([""] * (1 if priced else 2)), *best))

    def scored(values: Floats, where: Any = slice(None)) -> Outcomes:
        names = np.array([f"{row['dataset']}:{row['question_id']}" for row in test])[where]
        return Outcomes(tuple(names), number_groups([measured.groups[i] for i in index[where]]), values[where][:, None])

    router = policies["`auto`'s arms, the most likely"]
    prefix = f"recorded-routing/{name}"
    against = {
        "best-single": policies[f"best single model in training ({models[single].rpartition('/')[2]})"],
        "by-data-set": policies["best model of each data set in training"],
        "neighbours": policies[f"mean of the {NEIGHBOURS} nearest questions"],
        "regression": policies["logistic regression over the embedding"],
    }
    where = slice(None) if priced else inside
    results: list[Result] = [
        (
            f"{prefix}-vs-{label}",
            f"{name}: `auto`'s arms",
            label,
            compare_paired(scored(router, where), scored(v, where)),
        )
        for label, v in against.items()
    ]
    if not priced:
        outside = (scored(router, ~inside), scored(against["best-single"], ~inside))
        results.append(
            (
                f"{prefix}-others-vs-best-single",
                f"{name}, other sets: `auto`'s arms",
                "best-single",
                compare_paired(*outside),
            )
        )
    figures = {label: float(values[where].mean()) for label, values in policies.items()}
    text = table(("policy", *(["all"] if priced else ["in distribution", "others"]), *sets), lines)
    counts = ", ".join(f"{s} {int((of_set == s).sum())}" for s in sets)
    text += f"\n\nFitted on {len(train):,} questions, measured on {len(test):,} ({counts}). {published}"
    if priced:
        curve, more, numbers = cost_curve(
            measured,
            {
                "`auto`": predicted,
                "nearest questions": near,
                "means of the data set": PredictedArms(by_set, predicted.cost),
            },
            scored,
            prefix,
        )
        text, figures = f"{text}\n\n{curve}", {**figures, **numbers}
        results += more
    comparisons = compared(results)
    return Section(f"{text}\n\n{comparisons_table(comparisons)}", comparisons, figures)


def cost_curve(
    measured: ArmTable, predictions: Mapping[str, PredictedArms], scored: Any, prefix: str
) -> tuple[str, list[Result], dict[str, float]]:
    """Accuracy at equal cost: routers at every price, random mixes of two models, and the oracle."""
    singles = single_policies(measured.right, measured.cost)
    costs = np.array([s.cost.mean() for s in singles])
    means = np.array([s.right.mean() for s in singles])
    top = int(means.argmax())
    low, high = float(costs.min()), float(costs[top])
    floor, gap = float(means[costs.argmin()]), float(means[top] - means[costs.argmin()])
    budgets = np.exp(np.linspace(np.log(low), np.log(high), 41))
    exact = PredictedArms(measured.right, measured.cost)
    policies = {
        name: policies_of(predicted, measured.right, measured.cost)
        for name, predicted in {**predictions, "oracle": exact}.items()
    }
    at: dict[str, list[Floats]] = {"random mix of two models": [best_random_mix(singles, b) for b in budgets]}
    at |= {name: [at_cost(found, b)[0].right for b in budgets] for name, found in policies.items()}
    shown = (0, 10, 20, 30, 40)
    lines = []
    figures: dict[str, float] = {}
    averaged: dict[str, Floats] = {}
    for name, values in at.items():
        averaged[name] = np.mean(values, axis=0)
        figures[f"area {name}"] = float((averaged[name].mean() - floor) / gap)
        lines.append((name, *(f"{100 * values[i].mean():.1f}" for i in shown), f"{figures[f'area {name}']:.3f}"))
    head = ("policy", *(f"${1e-6 * budgets[i]:.5f}" for i in shown), "area")
    text = (
        f"{table(head, lines)}\n\nCorrect % at a mean cost of a question in US dollars as recorded, from the cheapest "
        "model's to that of the most accurate one. Area: the part of the gap between these two models that is "
        "recovered, "
        "a mean over costs that rise by equal factors. A router has a policy at each price of an error; at a "
        "cost it is "
        "the random mix of the two policies next to it in cost. The two models of a random mix are chosen with "
        "knowledge "
        "of the test rows, which favours it."
    )
    third = at["`auto`"][30]
    figures |= {"third": float(third.mean()), "third cost": float(budgets[30] / high)}
    results: list[Result] = [
        (
            f"{prefix}-curve-vs-random-mix",
            "`auto`'s arms, mean over costs",
            "random mix of two models",
            compare_paired(scored(averaged["`auto`"]), scored(averaged["random mix of two models"])),
        ),
        (
            f"{prefix}-curve-vs-by-data-set",
            "`auto`'s arms, mean over costs",
            "means of the data set",
            compare_paired(scored(averaged["`auto`"]), scored(averaged["means of the data set"])),
        ),
        (
            f"{prefix}-third-vs-best-single",
            f"`auto`'s arms at {100 * budgets[30] / high:.0f} % of its cost",
            measured.arms[top].parameters["recorded"],
            non_inferiority(scored(third), scored(singles[top].right), MARGIN),
        ),
    ]
    return text, results, figures


# -- the page

PUBLISHED_MMLU = (
    "Published for RouteLLM's routers with labels of MMLU's validation questions, best of each column: APGR "
    ".603, CPT(50 %) "
    "35.4, CPT(80 %) 70.3."
)
PUBLISHED_GSM8K = (
    "Published for RouteLLM's best router, trained on judgements of a model: 1.49 times fewer calls than random "
    "routing at "
    "half of the gap, so CPT(50 %) about 33.6."
)
PUBLISHED_SUITE = (
    "RouterDC's abstract reports 2.76 points in distribution and 1.90 out of distribution over the methods that it is "
    "compared with; its five sets contain CMMLU, whose texts are not in the pool, and not ARC-easy."
)


def main() -> None:
    """Write the page and the comparisons."""
    parser = arguments(__doc__)
    parser.add_argument("--vectors", type=Path, required=True, help="file of the questions' embeddings (.npz)")
    args = parser.parse_args()
    pools = (args.pools, args.side)
    two = read(*pools, "routellm")
    gsm8k = [row for row in two if row["dataset"] == "gsm8k"]
    mmlu = smallest((row for row in two if row["dataset"] == "mmlu"), MMLU_QUESTIONS)
    suites = read(*pools, "routerdc")
    seven, eleven = seven_models(suites), [row for row in suites if row["suite"] == "routerbench"]
    texts = [row["question"] for rows in (gsm8k, mmlu, seven, eleven) for row in rows]
    vectors, name, identity = asyncio.run(vectors_of(texts, args.vectors))
    embedded = Embedded(vectors, name, identity)
    sections = {
        "date": date_section(read(*pools, "mot_date")),
        "gsm8k": routellm_section("gsm8k", gsm8k, embedded, PUBLISHED_GSM8K),
        "mmlu": routellm_section("mmlu", mmlu, embedded, PUBLISHED_MMLU),
        "seven": suite_section("seven-models", seven, embedded, priced=False, published=PUBLISHED_SUITE),
        "eleven": suite_section("routerbench", eleven, embedded, priced=True, published=""),
    }
    comparisons = [comparison for section in sections.values() for comparison in section.comparisons]
    prints = "; ".join(fingerprint(*pools, pool) for pool in ("mot_date", "routellm", "routerdc"))
    text = page(sections, prints, f"{name} ({identity[:12]})")
    write_results(args.docs, "recorded_routing", text, comparisons)


def seven_models(suites: Iterable[Row]) -> list[Row]:
    """The suite of seven models: questions with text, of MMLU a part."""
    rows = [row for row in suites if row["suite"] == "routerdc_7x7b" and row.get("question")]
    kept = [row for row in rows if row["dataset"] != "mmlu"]
    for side in ("train", "test"):
        kept += smallest((r for r in rows if r["dataset"] == "mmlu" and r["source_split"] == side), SUITE_MMLU)
    return kept


def page(sections: Mapping[str, Section], prints: str, embedding: str) -> str:
    """The page."""
    by_id = {c.id.removeprefix("recorded-routing/"): c for section in sections.values() for c in section.comparisons}
    date, gsm8k, mmlu = (sections[name].figures for name in ("date", "gsm8k", "mmlu"))
    seven, eleven = sections["seven"].figures, sections["eleven"].figures
    few = "2 CoT + 2 PoT"
    single = next(name for name in seven if name.startswith("best single"))
    best11 = next(name for name in eleven if name.startswith("best single"))
    return f"""# Cascades and question routers on recorded answers

**Agreement among a small model's samples tells well where a large model is needed
<!-- claim: recorded-routing/date-2-cot-2-pot-vs-random -->; the question's text tells little
<!-- claim: recorded-routing/routellm-mmlu-vs-random -->.**

- **DATE, GPT-3.5 to GPT-4.** A cascade on 2 CoT and 2 PoT samples has {100 * date[f"{few} right"]:.1f} % with
  {100 * date[f"{few} share"]:.0f} % of GPT-4's calls; GPT-4 has {100 * date["gpt-4"]:.1f} %. It beats as many random
  calls ({finding(by_id["date-2-cot-2-pot-vs-random"])}). That it loses less than a point
  to GPT-4: {finding(by_id["date-2-cot-2-pot-vs-gpt4"])}. The published
  claim is GPT-4's quality at 40 % of its cost over six sets; the calls agree with it, the dollars are
  {100 * date[f"{few} cost"]:.0f} to {100 * date[f"{few} cost each"]:.0f} % of one greedy call under
  assumed token counts.
- **GSM8K, Mixtral or GPT-4.** `question-router` recovers {gsm8k["question-router"]:.3f} of the gap, a mean over all
  rates (random .500; in accuracy {finding(by_id["routellm-gsm8k-vs-random"])}), and needs {100 * gsm8k["half"]:.1f} %
  of the calls for half of it (RouteLLM's best router about 33.6). The length of the question alone recovers
  {gsm8k["length of the question"]:.3f}.
- **MMLU, Mixtral or GPT-4.** It recovers {mmlu["question-router"]:.3f} ({finding(by_id["routellm-mmlu-vs-random"])})
  and needs {100 * mmlu["half"]:.1f} % of the calls for half of the gap; RouteLLM's best routers with labels of MMLU
  have .603 and 35.4 %. The mean of the nearest questions recovers
  {mmlu[f"mean of the {NEIGHBOURS} nearest questions"]:.3f}
  (router against it: {finding(by_id["routellm-mmlu-vs-neighbours"])}).
- **Seven small models.** On questions like those of training the router has
  {100 * seven["`auto`'s arms, the most likely"]:.1f} %, the best single model {100 * seven[single]:.1f} %
  ({finding(by_id["seven-models-vs-best-single"])}), the best model of each data set
  {100 * seven["best model of each data set in training"]:.1f} % ({finding(by_id["seven-models-vs-by-data-set"])}). On
  other sets, against the single model that was best in training:
  {finding(by_id["seven-models-others-vs-best-single"])}.
- **Eleven models with costs (RouterBench).** Whatever it costs, the router has
  {100 * eleven["`auto`'s arms, the most likely"]:.1f} % and the best model {100 * eleven[best11]:.1f} %
  ({finding(by_id["routerbench-vs-best-single"])}). At equal cost, a mean over costs, it is compared with random
  mixes of two models ({finding(by_id["routerbench-curve-vs-random-mix"])}) and with the choice by data set alone
  ({finding(by_id["routerbench-curve-vs-by-data-set"])}). At {100 * eleven["third cost"]:.0f} % of
  the best model's cost it has {100 * eleven["third"]:.1f} %; that it loses less than a point:
  {finding(by_id["routerbench-third-vs-best-single"])}.

Everything is chosen and measured on the development half; to be confirmed on the held-out half.

## DATE: a cascade by agreement

{sections["date"].text}

## GSM8K, Mixtral or GPT-4

{sections["gsm8k"].text}

## MMLU, Mixtral or GPT-4

The {MMLU_QUESTIONS:,} questions whose text has the smallest SHA-256.

{sections["mmlu"].text}

## Seven models of 7 to 8 billion parameters

{sections["seven"].text}

## RouterBench: eleven models with costs

{sections["eleven"].text}

## How it was measured

<!-- not run: it measures for hours -->
```bash
python benchmarks/recorded/routing.py --pools POOLS --docs docs --vectors vectors.npz
```

The cascade's confidence and decision are `majority_solution`, `belief_in` and `reason_for_large`; routers are fitted
by `training/routers`, with the features of `auto` without the first-token entropy, which
needs the model, and embeddings of {embedding}. `question-router` is the fit that chooses between two models,
as `auto` does now. With two models each question is routed by a fit without its fold
(five folds of question groups); with several, `auto`'s arms are fitted on the source's training rows and measured on
its test rows. "Length of the question" sends the longest questions to the large model and fits nothing. APGR: the
part of the gap between the models that is recovered, a mean over all shares of calls; ties are broken at random.
CPT(x): calls of the large model, in per cent, that recover x of the gap. Tests: sign flips by question group (exact,
or 100,000 flips), non-inferiority by a t-test with a margin of {100 * MARGIN:.0f} point; Holm's correction within
each table. Fingerprints: {prints}.

## Limits

Published figures are not of these rows: they are of whole sets, RouteLLM's routers are trained on preferences of
people with or without labels, and ours on the labels of other questions of the same set, which is an easier task.
RouteLLM's and RouterDC's figures are quoted from summaries of the papers. Half of each set is here. Of GSM8K the
recorded answers are single, so that no cascade by agreement can be measured on them. Mixes of policies are chosen
with knowledge of the test rows, for routers and models alike. Chinese sets are left out, as the pool does not have
their texts.
"""


if __name__ == "__main__":
    main()
