"""Juries on recorded answers and reviews: votes, weights, early exit, and rankings by cross-review.

    python benchmarks/recorded/juries.py --pools DIR --docs docs

Votes, weights and rankings are those of `edgejury` (`verify/edgejury`), stopping rules those of the sampling
strategies. Weights, the order of the jurors and the best juror come from other questions: five folds of question
groups, fitted on four and applied to the fifth.
"""

from __future__ import annotations

import math
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cache
from itertools import combinations, permutations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from data import Row, arguments, fingerprint, read

sys.path.append(str(Path(__file__).resolve().parents[1]))

from jury_weights import chance_of_errors, fit_weights
from non_inferiority import NonInferiority, non_inferiority
from reason.evals.calibration import assign_folds
from reason.evals.statistics.intervals import wilson
from reason.evals.statistics.outcomes import Outcomes, number_groups
from reason.evals.statistics.paired import PairedComparison, compare_paired
from reason.reasoning.stopping import Agreement, Beta, Dirichlet, StoppingRule, Tally
from reason.verify.edgejury.jury import weighted_vote
from reason.verify.edgejury.ranking import borda_of, marks_of, pair_agreement, rank, rank_by_agreement
from reason.verify.edgejury.types import Marks, Opinion, Review
from reporting import Comparison, Section, compared, comparisons_table, finding, table, write_results
from scipy import stats

FOLDS = 5
FOLD_SEEDS = range(10)
ORDERS = range(100)
MARGIN = 0.01
"""Loss of accuracy that an early exit may have."""

GSM8K_JURORS = (
    "gemma-2-9b-it",
    "Meta-Llama-3.1-8B-Instruct",
    "Mistral-Nemo-Instruct-2407",
    "Phi-3.5-mini-instruct",
    "Qwen2-7B-Instruct",
    "Yi-1.5-9B-Chat",
)
"""One small model of each family; the pool's Llama-3-8B is left out beside Llama-3.1-8B."""
GSM8K_STRONG = ("gemma-2-27b-it", "Meta-Llama-3.1-70B-Instruct", "gpt-4o-mini-2024-07-18", "gpt-4o-2024-08-06")
MMLU_SMALL = (
    "Meta-Llama-3.1-8B-Instruct",
    "mathstral-7B",
    "Phi-3-mini-4k-instruct",
    "Mistral-7B-Instruct-v0.2",
    "Yi-6b-Chat",
    "Qwen1.5-7B-Chat",
)
MMLU_JURORS = (*MMLU_SMALL, "Mixtral-8x7B-Instruct-v0.1", "c4ai-command-r-v01", "Qwen1.5-72B-Chat")
MMLU_STRONG = ("Meta-Llama-3.1-70B-Instruct", "gemini-1.5-flash-002", "gemini-1.5-pro-002")

RULES: dict[str, StoppingRule] = {
    "two in a row agree": Agreement(window=2),
    "three in a row agree": Agreement(window=3),
    "beta 0.95": Beta(confidence=0.95),
    "beta 0.8": Beta(confidence=0.8),
    "dirichlet 0.05": Dirichlet(cost=0.05),
}
REVIEWED = ("gpt-4", "claude", "vicuna-13b", "gpt-3.5", "bard")
POINTS = {"A": (2, 1), "B": (1, 2), "tie": (1, 1)}
"""Marks of the two answers of a pair; only their order counts."""

Bools = np.ndarray[Any, np.dtype[np.bool_]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Panel:
    """The answers of a jury to questions.

    Attributes:
        name: For ids.
        models: The jurors.
        questions: Ids.
        groups: Group of each question.
        gold: Right answers in normal form.
        opinions: The jurors' opinions on each question, by juror.
        right: Whether each is right, `[questions, jurors]`.
        characters: Length of each answer, `[questions, jurors]`; 0 if not recorded.
    """

    name: str
    models: tuple[str, ...]
    questions: tuple[str, ...]
    groups: tuple[str, ...]
    gold: tuple[str, ...]
    opinions: tuple[tuple[Opinion, ...], ...]
    right: Bools
    characters: Floats

    def only(self, count: int) -> Panel:
        """The first jurors alone."""
        return Panel(
            self.name,
            self.models[:count],
            self.questions,
            self.groups,
            self.gold,
            tuple(opinions[:count] for opinions in self.opinions),
            self.right[:, :count],
            self.characters[:, :count],
        )

    def outcomes(self, right: Bools | Floats) -> Outcomes:
        """Scores of a method, clustered by the questions' groups."""
        return Outcomes(self.questions, number_groups(self.groups), right.astype(float)[:, None])


def normal_form(answer: str | None) -> str | None:
    """An answer so that equal numbers are equal texts."""
    if answer is None:
        return None
    try:
        return f"{Decimal(answer.replace(',', '')).normalize():f}"
    except InvalidOperation:
        return answer


def panel_of(name: str, rows: Sequence[Row], models: Sequence[str]) -> Panel:
    """A jury of these models over the questions that all of them have."""
    by_question: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row["model"] in models:
            by_question[row["question_id"]][row["model"]] = row
    table_rows = [[found[m] for m in models] for found in by_question.values() if len(found) == len(models)]
    panel = Panel(
        name=name,
        models=tuple(models),
        questions=tuple(row[0]["question_id"] for row in table_rows),
        groups=tuple(row[0].get("split_group", row[0]["question_id"]) for row in table_rows),
        gold=tuple(str(normal_form(row[0]["gold"])) for row in table_rows),
        opinions=tuple(
            tuple(
                Opinion(
                    juror=juror,
                    model=one["model"],
                    text=one.get("text") or "(no text)",
                    choice=normal_form(one["answer"]),
                    ok=True,
                )
                for juror, one in enumerate(row)
            )
            for row in table_rows
        ),
        right=np.array([[one["correct"] for one in row] for row in table_rows]),
        characters=np.array([[one.get("text_chars", 0) for one in row] for row in table_rows], dtype=float),
    )
    ours = np.array([[o.choice == g for o in row] for row, g in zip(panel.opinions, panel.gold, strict=True)])
    if (ours != panel.right).any():
        raise SystemExit(f"{name}: equal answers are not those that the pool counts as right")
    return panel


# -- votes


def choice_of(opinions: Sequence[Opinion], weights: Mapping[int, float], order: Sequence[int]) -> str | None:
    """The choice of the vote; None if nobody has one."""
    vote = weighted_vote(opinions, weights, order)
    return None if vote is None else vote.choice


@dataclass(frozen=True)
class Votes:
    """Votes of a panel.

    Attributes:
        plain: Whether the majority is right, `[questions]`.
        by_chance: With weights whose chance is 1/10, of one cross-fit.
        weighted: With weights whose chance is that of coinciding errors.
        best: The best juror of the other folds.
        firsts: The jurors, best first by the other folds, `[questions, jurors]`.
        weights: The weights of each question's fold.
        spread: Accuracy of `weighted` over the seeds of the folds.
        chances: The measured chance, by fold.
    """

    plain: Bools
    by_chance: Bools
    weighted: Bools
    best: Bools
    firsts: Any
    weights: list[dict[int, float]]
    spread: list[float]
    chances: list[float]


def votes_of(panel: Panel) -> Votes:
    """All votes of a panel."""
    orders = [rank_by_agreement(opinions, pair_agreement(opinions)).order for opinions in panel.opinions]

    def is_right(weights: Sequence[Mapping[int, float]]) -> Bools:
        rows = zip(panel.opinions, weights, orders, panel.gold, strict=True)
        return np.array([choice_of(o, w, order) == gold for o, w, order, gold in rows])

    spread = []
    for seed in FOLD_SEEDS:
        folds = fitted_weights(panel, seed, measured=True)
        right = is_right(folds.weights)
        spread.append(float(right.mean()))
        if seed == FOLD_SEEDS[0]:
            first, weighted = folds, right
    even = fitted_weights(panel, FOLD_SEEDS[0], measured=False)
    return Votes(
        plain=is_right([{}] * len(panel.questions)),
        by_chance=is_right(even.weights),
        weighted=weighted,
        best=panel.right[np.arange(len(panel.questions)), first.firsts[:, 0]],
        firsts=first.firsts,
        weights=first.weights,
        spread=spread,
        chances=first.chances,
    )


@dataclass(frozen=True)
class FoldWeights:
    """Weights and order of the jurors by question, from the other folds."""

    weights: list[dict[int, float]]
    firsts: Any
    chances: list[float]


def fitted_weights(panel: Panel, seed: int, *, measured: bool) -> FoldWeights:
    """Reliabilities fitted without each question's fold; the chance is measured there too, or 1/10."""
    fold = assign_folds(panel.groups, FOLDS, seed)
    weights: list[dict[int, float]] = [{} for _ in panel.questions]
    firsts = np.zeros(panel.right.shape, dtype=int)
    chances = []
    for number in range(FOLDS):
        rest, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        wrong = [
            [o.choice for o in panel.opinions[i] if o.choice is not None and o.choice != panel.gold[i]] for i in rest
        ]
        chance = chance_of_errors(wrong) if measured else 0.1
        records = [(m, bool(panel.right[i, j])) for i in rest for j, m in enumerate(panel.models)]
        fitted = fit_weights(records, chance=chance)
        by_juror = {j: fitted[model] for j, model in enumerate(panel.models)}
        order = np.argsort(-panel.right[rest].mean(axis=0), kind="stable")
        for i in held:
            weights[i], firsts[i] = by_juror, order
        chances.append(chance)
    return FoldWeights(weights, firsts, chances)


# -- early exit


def labels_of(opinions: Sequence[Opinion]) -> tuple[int | None, ...]:
    """Classes of answers, numbered as they appear."""
    numbers: dict[str, int] = {}
    return tuple(None if o.choice is None else numbers.setdefault(o.choice, len(numbers)) for o in opinions)


@cache
def stopped_at(labels: tuple[int | None, ...], rule: str) -> int:
    """Jurors that are asked, one after the other."""
    for asked in range(1, len(labels)):
        if RULES[rule].should_stop(Tally(labels=labels[:asked])):
            return asked
    return len(labels)


@cache
def winner_of(labels: tuple[int | None, ...]) -> int | None:
    """The class that wins the plain vote; ties go to the class that appeared first."""
    opinions = [
        Opinion(juror=i, model="", text="-", choice=None if label is None else str(label), ok=True)
        for i, label in enumerate(labels)
    ]
    choice = choice_of(opinions, {}, range(len(labels)))
    return None if choice is None else int(choice)


def settled_at(opinions: Sequence[Opinion], weights: Mapping[int, float]) -> int:
    """Jurors after which the others cannot change the winner of the weighted vote, one after the other."""
    left = sum(weights.get(o.juror, 1.0) for o in opinions)
    sums: dict[str, float] = {}
    for asked, opinion in enumerate(opinions, 1):
        weight = weights.get(opinion.juror, 1.0)
        left -= weight
        if opinion.choice is not None:
            sums[opinion.choice] = sums.get(opinion.choice, 0.0) + weight
        first, second, *_ = (*sorted(sums.values(), reverse=True), 0.0, 0.0)
        if first - second > left + 1e-9:
            return asked
    return len(opinions)


@dataclass(frozen=True)
class Sequential:
    """Jurors asked one after the other.

    Attributes:
        right: Whether the answer is right, `[questions]`, a mean over orders where there are several.
        calls: Jurors asked, likewise.
        characters: Characters that they wrote, likewise.
    """

    right: Floats
    calls: Floats
    characters: Floats


def best_first(panel: Panel, votes: Votes, rule: str) -> Sequential:
    """A stopping rule over the jurors in the order of their accuracy in the other folds; plain votes."""
    return in_orders(panel, [votes.firsts], rule)


def in_random_orders(panel: Panel, rule: str) -> Sequential:
    """A stopping rule over jurors in random orders, the mean over `ORDERS`."""
    shape = (len(panel.questions), len(panel.models))
    orders = [np.argsort(np.random.default_rng(seed).random(shape), axis=1) for seed in ORDERS]
    return in_orders(panel, orders, rule)


def in_orders(panel: Panel, orders: Sequence[Any], rule: str) -> Sequential:
    """The mean over orders of the jurors, each `[questions, jurors]`."""
    n = len(panel.questions)
    right, calls, characters = np.zeros(n), np.zeros(n), np.zeros(n)
    for order in orders:
        for i, opinions in enumerate(panel.opinions):
            shown = [opinions[j] for j in order[i]]
            labels = labels_of(shown)
            asked = stopped_at(labels, rule)
            winner = winner_of(labels[:asked])
            answer = None if winner is None else shown[labels.index(winner)].choice
            right[i] += answer == panel.gold[i]
            calls[i] += asked
            characters[i] += panel.characters[i, order[i][:asked]].sum()
    return Sequential(right / len(orders), calls / len(orders), characters / len(orders))


def until_settled(panel: Panel, votes: Votes, *, weighted: bool) -> Sequential:
    """The jurors best first, until the others cannot change the winner."""
    right, calls, characters = [], [], []
    for i, opinions in enumerate(panel.opinions):
        shown = [opinions[j] for j in votes.firsts[i]]
        weights = votes.weights[i] if weighted else {}
        asked = settled_at(shown, weights)
        right.append(choice_of(shown[:asked], weights, votes.firsts[i]) == panel.gold[i])
        calls.append(asked)
        characters.append(panel.characters[i, votes.firsts[i][:asked]].sum())
    return Sequential(np.array(right, float), np.array(calls, float), np.array(characters, float))


def percent(right: Bools | Floats) -> str:
    """Accuracy with Wilson's interval."""
    ends = wilson(round(float(right.sum())), len(right))
    return f"{100 * right.mean():.2f} [{100 * ends.low:.1f}, {100 * ends.high:.1f}]"


def jury_table(panel: Panel, votes: Votes, strong: Mapping[str, Bools], runs: Mapping[str, Sequential]) -> str:
    """All methods on one set."""
    with_length = bool(panel.characters.any())
    everything = panel.characters.sum(axis=1)
    of_best = panel.characters[np.arange(len(panel.questions)), votes.firsts[:, 0]].mean()
    rows = [(f"juror {m}", percent(panel.right[:, j]), "1", f"{panel.characters[:, j].mean():.0f}")
            for j, m in enumerate(panel.models)]  # fmt: skip
    n = str(len(panel.models))
    rows += [
        ("best juror of the other folds", percent(votes.best), "1", f"{of_best:.0f}"),
        ("majority vote", percent(votes.plain), n, f"{everything.mean():.0f}"),
        ("weighted vote, chance 1/10", percent(votes.by_chance), n, f"{everything.mean():.0f}"),
        ("weighted vote, measured chance", percent(votes.weighted), n, f"{everything.mean():.0f}"),
    ]
    rows += [
        (name, percent(run.right), f"{run.calls.mean():.2f}", f"{run.characters.mean():.0f}")
        for name, run in runs.items()
    ]
    rows += [("any juror is right", percent(panel.right.any(axis=1)), "", "")]
    rows += [(f"strong model {name}", percent(right), "1", "") for name, right in strong.items()]
    head = ("method", "correct % [95 %]", "calls", "characters written")
    return table(head if with_length else head[:3], [row if with_length else row[:3] for row in rows])


# -- cross-review

Pair = tuple[str, int, int]
"""A question and two models, the first with the lower number."""


@dataclass(frozen=True)
class CrossReview:
    """Pairwise reviews and human verdicts.

    Attributes:
        questions: Ids.
        rows: The reviews of each question.
        human: The model that most annotators prefer in each pair; None for a tie.
    """

    questions: tuple[str, ...]
    rows: dict[str, list[Row]]
    human: dict[Pair, int | None]

    def reviews(self, question: str, *, self_excluded: bool, keep: Callable[[Row], bool] | None = None) -> list[Review]:
        """The reviews of a question in the form of a jury's: one for each ordered pair."""
        return [
            review_of(row)
            for row in self.rows[question]
            if not (self_excluded and row["reviewer"] in (row["model_a"], row["model_b"]))
            and (keep is None or keep(row))
        ]


def review_of(row: Row) -> Review:
    """A verdict on an ordered pair as a review that marks two answers."""
    marks = [
        Marks(candidate=REVIEWED.index(row[name]), accuracy=points, insight=points, clarity=points)
        for name, points in zip(("model_a", "model_b"), POINTS[row["verdict"]], strict=True)
    ]
    return Review(reviewer=REVIEWED.index(row["reviewer"]), scores=tuple(marks), ok=True)


def most_common(verdicts: Sequence[int | None]) -> int | None:
    """The verdict of most; None for a tie."""
    first, *others = Counter(verdicts).most_common(2)
    return first[0] if not others or first[1] > others[0][1] else None


def cross_review(reviews: Sequence[Row], human: Sequence[Row]) -> CrossReview:
    """The pool in this form."""
    votes: dict[Pair, list[int | None]] = defaultdict(list)
    for row in human:
        a, b = REVIEWED.index(row["model_a"]), REVIEWED.index(row["model_b"])
        votes[row["question_id"], min(a, b), max(a, b)] += [{"A": a, "B": b, "tie": None}[v] for v in row["votes"]]
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in reviews:
        rows[row["question_id"]].append(row)
    return CrossReview(tuple(rows), dict(rows), {pair: most_common(v) for pair, v in votes.items()})


@dataclass(frozen=True)
class Rated:
    """Scores of the answers by a rule, `[questions, models]`, and the answer ranked first, `[questions]`."""

    scores: Floats
    best: Any


Rule = Literal["borda", "copeland", "schulze"]


def rated(reviews: Mapping[str, Sequence[Review]], rule: Rule, *, weighted: bool = False) -> Rated:
    """Rank the answers to each question by its reviews.

    Ties go to the better mean mark, as in `rank`. Copeland, Schulze and the weights were measured for the jury, which
    has only Borda.
    """
    scores, best = [], []
    for found in reviews.values():
        orders = [marks_of(review) for review in found]
        weights = concordance(found) if weighted else {}
        own = [weights.get(review.reviewer, 1.0) for review in found]
        models = range(len(REVIEWED))
        if rule == "borda":
            shares = [borda_of(order) for order in orders]
            values = [
                weighted_mean([(w, share[m]) for w, share in zip(own, shares, strict=True) if m in share], 0.5)
                for m in models
            ]
        else:
            values = pairwise_shares(orders, own, paths=rule == "schulze")
        marks = [
            weighted_mean([(w, order[m]) for w, order in zip(own, orders, strict=True) if m in order], 0.0)
            for m in models
        ]
        scores.append(values)
        best.append(min(models, key=lambda m, values=values, marks=marks: (-values[m], -marks[m], m)))
    return Rated(np.array(scores), np.array(best))


def weighted_mean(weighted: Sequence[tuple[float, Fraction]], default: float) -> float:
    """The mean of values with weights."""
    total = math.fsum(weight for weight, _ in weighted)
    return math.fsum(weight * float(value) for weight, value in weighted) / total if total else default


def pairwise_shares(orders: Sequence[Mapping[int, Fraction]], weights: Sequence[float], *, paths: bool) -> list[float]:
    """The share of the other answers that each beats, a tie counting half.

    Copeland 1951: by the weight of the reviews that prefer it. Schulze 2011, section 2.3, with `paths`: by the
    strongest path of victories.
    """
    models = range(len(REVIEWED))
    strength = {
        (a, b): math.fsum(w for w, o in zip(weights, orders, strict=True) if a in o and b in o and o[a] > o[b])
        for a, b in permutations(models, 2)
    }
    if paths:
        strength = {(a, b): w if w > strength[b, a] else 0.0 for (a, b), w in strength.items()}
        for via in models:
            for a, b in permutations(models, 2):
                if via not in (a, b):
                    strength[a, b] = max(strength[a, b], min(strength[a, via], strength[via, b]))
    beaten = [
        sum(2 * (strength[a, b] > strength[b, a]) + (strength[a, b] == strength[b, a]) for b in models if b != a)
        for a in models
    ]
    return [halves / (2 * (len(REVIEWED) - 1)) for halves in beaten]


def concordance(reviews: Sequence[Review]) -> dict[int, float]:
    """The weight of each reviewer, ln(c / (1 - c)) and at least 0.05: c is its agreement with the others on pairs."""
    orders: dict[int, list[dict[tuple[int, int], int]]] = defaultdict(list)
    for review in reviews:
        marks = marks_of(review)
        pairs = combinations(sorted(marks), 2)
        orders[review.reviewer].append(
            {(a, b): max(a, b, key=marks.__getitem__) for a, b in pairs if marks[a] != marks[b]}
        )
    weights = {}
    for reviewer, own in orders.items():
        agreements = [
            first == winners[pair]
            for other, others in orders.items()
            if other != reviewer
            for winners in others
            for mine in own
            for pair, first in mine.items()
            if pair in winners
        ]
        agreed = (sum(agreements) + 1) / (len(agreements) + 2)
        weights[reviewer] = max(0.05, math.log(agreed / (1 - agreed)))
    return weights


def leaderboard(data: CrossReview) -> Rated:
    """One order of the models for all questions: that of the reviews of the other questions, by Borda."""
    every = {q: data.reviews(q, self_excluded=False) for q in data.questions}
    scores, best = [], []
    for question in data.questions:
        others = [review for q, found in every.items() if q != question for review in found]
        ranking = rank(others, range(len(REVIEWED)))
        by_model = {s.juror: s.score for s in ranking.standings}
        scores.append([by_model[m] for m in range(len(REVIEWED))])
        best.append(ranking.best)
    return Rated(np.array(scores), np.array(best))


def agreements(data: CrossReview, scores: Floats) -> Floats:
    """Share of the pairs of each question on which the scores agree with the human majority, `[questions]`."""
    at = {q: i for i, q in enumerate(data.questions)}
    equal: dict[str, list[bool]] = defaultdict(list)
    for (question, a, b), wanted in data.human.items():
        of_a, of_b = scores[at[question], a], scores[at[question], b]
        said = None if of_a == of_b else a if of_a > of_b else b
        equal[question].append(said == wanted)
    return np.array([np.mean(equal[q]) for q in data.questions])


def human_rates(data: CrossReview) -> Floats:
    """Share of the other answers that the human majority finds worse, ties half, `[questions, models]`."""
    at = {q: i for i, q in enumerate(data.questions)}
    won = np.zeros((len(data.questions), len(REVIEWED)))
    for (question, a, b), better in data.human.items():
        for model in (a, b):
            won[at[question], model] += 0.5 if better is None else float(better == model)
    return won / (len(REVIEWED) - 1)


def kendall_w(data: CrossReview) -> tuple[float, int]:
    """Mean coefficient of concordance of the reviewers' orders, and questions where it is significant at 0.05.

    Source: Kendall, Babington Smith 1939, "The Problem of m Rankings", with the correction for ties.
    """
    values, significant = [], 0
    for question in data.questions:
        marks = []
        for reviewer in range(len(REVIEWED)):
            own = [r for r in data.reviews(question, self_excluded=False) if r.reviewer == reviewer]
            ranking = rank(own, range(len(REVIEWED)))
            by_model = {s.juror: s.score for s in ranking.standings}
            marks.append([by_model[m] for m in range(len(REVIEWED))])
        statistic, p = stats.friedmanchisquare(*np.array(marks).T)
        values.append(statistic / (len(marks) * (len(REVIEWED) - 1)))
        significant += p < 0.05
    return float(np.mean(values)), int(significant)


def one_order(data: CrossReview, seed: int) -> Floats:
    """Agreement where each reviewer saw each pair in one order alone."""
    rng = np.random.default_rng(seed)
    reviews = {}
    for question in data.questions:
        names = sorted({(r["reviewer"], *sorted((r["model_a"], r["model_b"]))) for r in data.rows[question]})
        first = {name: name[1 + int(flip)] for name, flip in zip(names, rng.integers(0, 2, len(names)), strict=True)}

        def shown(row: Row, first: dict[Any, str] = first) -> bool:
            key = (row["reviewer"], *sorted((row["model_a"], row["model_b"])))
            return bool(first[key] == row["model_a"])

        reviews[question] = data.reviews(question, self_excluded=False, keep=shown)
    return agreements(data, rated(reviews, "borda").scores)


def first_shown(data: CrossReview) -> str:
    """How often each reviewer prefers the answer shown first, and says the same in both orders."""
    parts = []
    for reviewer in REVIEWED:
        verdicts = {
            (row["question_id"], row["model_a"], row["model_b"]): row["verdict"]
            for found in data.rows.values()
            for row in found
            if row["reviewer"] == reviewer
        }
        decided = [v for v in verdicts.values() if v != "tie"]
        mirror = {"A": "B", "B": "A", "tie": "tie"}
        same = np.mean([mirror[v] == verdicts[q, b, a] for (q, a, b), v in verdicts.items()])
        parts.append(f"{reviewer} {100 * np.mean([v == 'A' for v in decided]):.0f} % / {100 * same:.0f} %")
    return "; ".join(parts)


# -- the page


def jury_section(panel: Panel, rows: Sequence[Row], strong_names: Sequence[str], votes: Votes) -> Section:
    """The table of one set and its comparisons."""
    by_name = {(row["model"], row["question_id"]): bool(row["correct"]) for row in rows}
    strong = {m: np.array([by_name.get((m, q), False) for q in panel.questions]) for m in strong_names}
    exit_rule = "three in a row agree"
    exit_name = f"majority, best first, until {exit_rule}"
    runs = {
        "majority, best first, until settled": until_settled(panel, votes, weighted=False),
        "weighted, best first, until settled": until_settled(panel, votes, weighted=True),
        **{f"majority, best first, until {rule}": best_first(panel, votes, rule) for rule in RULES},
        f"majority, {len(ORDERS)} random orders, until {exit_rule}": in_random_orders(panel, exit_rule),
    }
    plain, best, weighted = (panel.outcomes(x) for x in (votes.plain, votes.best, votes.weighted))
    prefix = f"recorded-juries/{panel.name}"
    first_strong = strong_names[0]
    results: list[tuple[str, str, str, PairedComparison | NonInferiority]] = [
        (f"{prefix}-vote-vs-best-juror", "majority vote", "best juror", compare_paired(plain, best)),
        (f"{prefix}-weighted-vs-best-juror", "weighted vote", "best juror", compare_paired(weighted, best)),
        (f"{prefix}-weighted-vs-vote", "weighted vote", "majority vote", compare_paired(weighted, plain)),
        (
            f"{prefix}-measured-vs-even-chance",
            "weighted vote, measured chance",
            "weighted vote, chance 1/10",
            compare_paired(weighted, panel.outcomes(votes.by_chance)),
        ),
        (
            f"{prefix}-early-exit",
            exit_name,
            "majority vote of all",
            non_inferiority(panel.outcomes(runs[exit_name].right), plain, MARGIN),
        ),
        (
            f"{prefix}-weighted-vs-strong",
            "weighted vote",
            first_strong,
            compare_paired(weighted, panel.outcomes(strong[first_strong])),
        ),
    ]
    comparisons = compared(results)
    chances = f"{min(votes.chances):.3f} to {max(votes.chances):.3f}"
    text = (
        f"{jury_table(panel, votes, strong, runs)}\n\n"
        f"Over {len(FOLD_SEEDS)} splits into folds the weighted vote has {100 * min(votes.spread):.2f} to "
        f"{100 * max(votes.spread):.2f} %. Measured chance of coinciding errors: {chances}.\n\n"
        f"{comparisons_table(comparisons)}"
    )
    return Section(text, comparisons, {name: float(run.calls.mean()) for name, run in runs.items()})


FIXED = "one order for all questions, from the reviews of the others"


def review_section(data: CrossReview) -> Section:
    """The table of the cross-reviews and its comparisons."""
    both = {q: data.reviews(q, self_excluded=False) for q in data.questions}
    others = {q: data.reviews(q, self_excluded=True) for q in data.questions}
    rankings: dict[str, Rated] = {}
    rules: tuple[Rule, ...] = ("borda", "copeland", "schulze")
    for rule in rules:
        rankings[f"{rule}, all reviews"] = rated(both, rule)
        rankings[f"{rule}, own answers not reviewed"] = rated(others, rule)
    rankings["borda, all reviews, concordance weights"] = rated(both, "borda", weighted=True)
    rankings["borda, own answers not reviewed, concordance weights"] = rated(others, "borda", weighted=True)
    for number, reviewer in enumerate(REVIEWED):
        own = {q: [r for r in found if r.reviewer == number] for q, found in both.items()}
        rankings[f"borda, reviews of {reviewer} alone"] = rated(own, "borda")
    rankings[FIXED] = leaderboard(data)
    human = human_rates(data)
    index = np.arange(len(data.questions))
    agreed = {name: agreements(data, found.scores) for name, found in rankings.items()}
    chosen = {name: human[index, found.best] for name, found in rankings.items()}
    in_one_order = np.mean([one_order(data, seed) for seed in ORDERS], axis=0)
    rows = [(name, f"{100 * agreed[name].mean():.1f}", f"{100 * chosen[name].mean():.1f}") for name in rankings]
    rows += [
        (f"borda, each pair in one order, mean of {len(ORDERS)} draws", f"{100 * in_one_order.mean():.1f}", ""),
        ("the answer that people like best", "", f"{100 * human.max(axis=1).mean():.1f}"),
        ("a random answer", "", f"{100 * human.mean():.1f}"),
    ]

    def scored(values: Floats) -> Outcomes:
        return Outcomes(data.questions, number_groups(data.questions), values[:, None])

    def pair(name: str, a: str, b: str, of: Mapping[str, Floats]) -> tuple[str, str, str, PairedComparison]:
        return f"recorded-juries/review-{name}", a, b, compare_paired(scored(of[a]), scored(of[b]))

    borda, no_self = "borda, all reviews", "borda, own answers not reviewed"
    of_choice = compared(
        [pair("choice-vs-best-model", borda, FIXED, chosen), pair("choice-no-self", no_self, FIXED, chosen)],
        metric="share of the other answers that people find worse",
    )
    agreed["borda, each pair in one order"] = in_one_order
    of_order = compared(
        [
            pair("vs-one-order", borda, FIXED, agreed),
            pair("all-vs-no-self", borda, no_self, agreed),
            pair("concordance", "borda, all reviews, concordance weights", borda, agreed),
            pair("both-orders", borda, "borda, each pair in one order", agreed),
        ],
        metric="agreement with the human majority",
    )
    w, significant = kendall_w(data)
    best = Counter(REVIEWED[model] for model in rankings[FIXED].best).most_common(1)[0][0]
    head = ("ranking", "agreement with the human majority %", "other answers that people find worse than the chosen %")
    text = (
        f"{table(head, rows)}\n\n"
        f"{len(data.questions)} questions, {len(data.human)} pairs, {len(REVIEWED)} reviewers, each pair in both "
        "orders; "
        f"{sum(v is None for v in data.human.values())} pairs are a tie for people, and a ranking agrees with a "
        "tie only "
        f"if it has one. The single order always chooses {best}. Kendall's W of the five reviewers' orders is "
        f"{w:.2f} in "
        f"the mean; it is significant (p < 0.05, Friedman's test, uncorrected) on {significant} of "
        f"{len(data.questions)} "
        f"questions. Answers shown first that win, and equal verdicts in both orders: {first_shown(data)}.\n\n"
        f"What the choice is worth (the last column):\n\n{comparisons_table(of_choice)}\n\n"
        f"Agreement (the first column):\n\n{comparisons_table(of_order)}"
    )
    figures = {
        **{f"agreement {name}": float(values.mean()) for name, values in agreed.items()},
        **{f"choice {name}": float(values.mean()) for name, values in chosen.items()},
    }
    return Section(text, [*of_choice, *of_order], figures)


def main() -> None:
    """Write the page and the comparisons."""
    args = arguments(__doc__).parse_args()
    zeroeval = [row for row in read(args.pools, args.side, "zeroeval") if row["dataset"] == "gsm8k"]
    mmlu = read(args.pools, args.side, "mmlu_pro")
    gsm8k, nine = panel_of("gsm8k", zeroeval, GSM8K_JURORS), panel_of("mmlu-pro", mmlu, MMLU_JURORS)
    six = replace(nine.only(len(MMLU_SMALL)), name="mmlu-pro-six")
    votes = {panel.name: votes_of(panel) for panel in (gsm8k, nine, six)}
    sections = {
        "gsm8k": jury_section(gsm8k, zeroeval, GSM8K_STRONG, votes["gsm8k"]),
        "mmlu-pro": jury_section(nine, mmlu, MMLU_STRONG, votes["mmlu-pro"]),
        "mmlu-pro-six": jury_section(six, mmlu, MMLU_STRONG[:1], votes["mmlu-pro-six"]),
        "review": review_section(
            cross_review(read(args.pools, args.side, "prd_reviews"), read(args.pools, args.side, "prd_human"))
        ),
    }
    comparisons = [comparison for section in sections.values() for comparison in section.comparisons]
    text = page(args, sections, votes, {c.id.removeprefix("recorded-juries/"): c for c in comparisons})
    write_results(args.docs, "recorded_juries", text, comparisons)


def page(
    args: Any, sections: Mapping[str, Section], votes: Mapping[str, Votes], by_id: Mapping[str, Comparison]
) -> str:
    """The page."""
    figures = sections["review"].figures
    until = {name: sections[name].figures for name in ("gsm8k", "mmlu-pro")}
    settled, three = "weighted, best first, until settled", "majority, best first, until three in a row agree"
    prints = "; ".join(
        fingerprint(args.pools, args.side, name) for name in ("zeroeval", "mmlu_pro", "prd_reviews", "prd_human")
    )
    a, b, c = votes["gsm8k"], votes["mmlu-pro"], votes["mmlu-pro-six"]
    borda, no_self = "borda, all reviews", "borda, own answers not reviewed"
    return f"""# Juries on recorded answers

**On GSM8K a vote of six small models beats the best of them <!-- claim: recorded-juries/gsm8k-vote-vs-best-juror -->.
On MMLU-Pro nine need weights for it <!-- claim: recorded-juries/mmlu-pro-weighted-vs-best-juror -->.
Choosing an answer by cross-review does not beat the best model <!-- claim: recorded-juries/review-choice-no-self
-->.**

- **GSM8K, six jurors of 4 to 12 billion parameters.** The majority has {100 * a.plain.mean():.1f} %, the best juror
  {100 * a.best.mean():.1f} % ({finding(by_id["gsm8k-vote-vs-best-juror"])}). Weights by reliability add nothing
  ({finding(by_id["gsm8k-weighted-vs-vote"])}).
- **MMLU-Pro, nine jurors.** The majority has {100 * b.plain.mean():.1f} %, the weighted vote
  {100 * b.weighted.mean():.1f} % ({finding(by_id["mmlu-pro-weighted-vs-vote"])}), the best juror
  {100 * b.best.mean():.1f} % (weighted vote against it: {finding(by_id["mmlu-pro-weighted-vs-best-juror"])};
  majority: {finding(by_id["mmlu-pro-vote-vs-best-juror"])}). The weights have to know how often errors coincide: with
  the chance of a guess, 1/10, they gain less ({finding(by_id["mmlu-pro-measured-vs-even-chance"])}). That the jury
  reaches a model of 70 billion parameters is refuted ({finding(by_id["mmlu-pro-weighted-vs-strong"])}).
- **Early exit.** Asked one after the other, best first, until the others cannot change the weighted vote, the jurors
  take {until["gsm8k"][settled]:.2f} of 6 and {until["mmlu-pro"][settled]:.2f} of 9 calls for the same answers. The
  majority vote until three in a row agree takes {until["gsm8k"][three]:.2f} and {until["mmlu-pro"][three]:.2f}.
  That it loses less than a point: {by_id["gsm8k-early-exit"].status} on GSM8K, {by_id["mmlu-pro-early-exit"].status}
  on MMLU-Pro.
- **Cross-review of open answers.** Borda over all reviews agrees with people on
  {100 * figures[f"agreement {borda}"]:.1f} % of the pairs, one fixed order of the models on
  {100 * figures[f"agreement {FIXED}"]:.1f} % ({finding(by_id["review-vs-one-order"])}). People prefer the answer that
  the reviews put first to {100 * figures[f"choice {borda}"]:.1f} % of the others, and the best model's answer to
  {100 * figures[f"choice {FIXED}"]:.1f} % ({finding(by_id["review-choice-vs-best-model"])}). Where no model reviews
  its own answer, as in `edgejury`, it is {100 * figures[f"choice {no_self}"]:.1f} %
  ({finding(by_id["review-choice-no-self"])}). **EdgeJury's gain from review is not
  shown here**; where one model is known to be the best, that reviews choose a better answer than it gives is refuted.

Everything is chosen and measured on the development half; to be confirmed on the held-out half.

## Six jurors on GSM8K

Published with the pool, on all 1,318 questions: vote 92.20 %, best juror 87.34 %.

{sections["gsm8k"].text}

## Nine jurors on MMLU-Pro

The six models up to 8 billion parameters and three middle ones; ten options, letters that could not be read count as
no answer.

{sections["mmlu-pro"].text}

## The six small jurors on MMLU-Pro

Here the majority has {100 * c.plain.mean():.1f} %, the weighted vote {100 * c.weighted.mean():.1f} % and the best
juror {100 * c.best.mean():.1f} %.

{sections["mmlu-pro-six"].text}

## Cross-review of open answers

Published agreement with the human majority on all 80 questions: .676 with all reviews, .658 without those of own
answers (recomputed by the pool's own check).

{sections["review"].text}

## How it was measured

<!-- not run: it measures for hours -->
```bash
python benchmarks/recorded/juries.py --pools POOLS --docs docs
```

Votes are `weighted_vote`, weights `fit_weights` with `chance_of_errors`, and Borda is `rank` of
`reason.verify.edgejury`, which has neither the other rules nor the
concordance weights; stopping rules are those of `reason.reasoning.stopping`. Weights, the order of the jurors
and the best juror of a question come from the four folds of question groups that it is not in. A pair of answers
counts as one review that marks two answers. Tests: McNemar's exact test where questions are independent, else sign
flips by group; Holm's correction within each table of comparisons; "shown" needs an adjusted p below 0.05. Early exit
is tested for a loss of less than {100 * MARGIN:.0f} point. Fingerprints: {prints}.

## Limits

Greedy answers, one a model, of models of 2023 and 2024. The recorded jurors answered alone, without roles, so nothing
here measures a chair, revised answers or the review of closed questions: no recorded data has these. `edgejury` asks
its jurors at once and does not stop between them; the rows "until" show what asking them one after the other would
save. Tokens are not recorded; characters are those of the answers. The reviews are of {len(REVIEWED)} models of
spring 2023 on 41 questions, too few to show small gains.
"""


if __name__ == "__main__":
    main()
