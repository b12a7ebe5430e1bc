"""Step rewards on recorded scores: how the scores of steps become one, where the first error is, and pairs of answers.

    python benchmarks/recorded/step_rewards.py --pools DIR --docs docs

Step scores of Math-Shepherd and seven ReasonEval models (Xia et al. 2024) on solutions with labelled steps, and rewards
and verdicts on the pairs of JudgeBench (Tan et al. 2024). AUC: how often a good solution scores above a bad one.
Intervals: 95 % percentiles of a bootstrap over questions. Tests of two aggregations: the ranks that a question's
solutions have under them are exchanged at random (Bandos, Rockette, Gur 2005).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import numpy as np
from data import Row, arguments, fingerprint, read
from scipy.stats import rankdata

sys.path.append(str(Path(__file__).resolve().parents[1]))

from reason.evals.statistics.intervals import Interval, percentiles, wilson
from reason.evals.statistics.outcomes import Outcomes, number_groups
from reason.evals.statistics.paired import claim_status, compare_paired, holm
from reason.reasoning.step_rewards import aggregate_scores
from reporting import Comparison, adjusted_p, claim_marker, compared, comparisons_table, table, write_results

SHEPHERD = "math-shepherd_mistral-7b"
AGGREGATIONS = ("min", "prod", "last", "mean")
PAIRS = (("prod", "last"), ("mean", "last"), ("min", "last"), ("prod", "min"), ("mean", "prod"))
RESAMPLES = 10_000
SEED = 100
FOLDS = 5
SAME_LENGTH = ("random number", "random operation", "swap steps")
PUBLISHED = {
    SHEPHERD: {"min": 0.773, "prod": 0.814, "last": 0.772},
    "reasoneval_llemma-34b": {"min": 0.908, "prod": 0.926, "last": 0.881},
}
"""AUC on the invalid set of the whole pool."""
JUDGES = ("o1-mini-2024-09-12", "claude-3-haiku-20240307")
FLIPPED = {"A>B": "B>A", "B>A": "A>B"}


@dataclass(frozen=True)
class Labelled:
    """Solutions with a label and the scores of one or several models.

    Attributes:
        good: Whether a solution is good, `[solutions]`.
        groups: Number of its question, `[solutions]`.
        ranks: By aggregation the ranks of the solutions, `[models, solutions]`.
    """

    good: np.ndarray
    groups: np.ndarray
    ranks: Mapping[str, np.ndarray]


def validity(score: float | Sequence[float]) -> float:
    """Probability that a step is valid; ReasonEval gives those of invalid, redundant, and good."""
    return score if isinstance(score, float) else score[1] + score[2]


def need(score: float | Sequence[float]) -> float:
    """Probability that a step is not redundant; Math-Shepherd has only one score."""
    return score if isinstance(score, float) else 1.0 - score[1]


def step_scores(row: Row, model: str) -> list[float]:
    """Validity of the steps: the minimum of a step's lines."""
    lines = [validity(score) for score in row["step_scores"][model]]
    steps, at = [], 0
    for n in row.get("lines_per_step") or [1] * len(lines):
        steps.append(min(lines[at : at + n]))
        at += n
    return steps


def labelled(rows: Sequence[Row], models: Sequence[str], kind: str) -> Labelled:
    """One of the two labelled sets."""
    invalid = kind == "invalid"
    ranks = {}
    for how in AGGREGATIONS:
        values = [
            [
                aggregate_scores(
                    step_scores(row, m) if invalid else [need(s) for s in row["step_scores"][m]],
                    how,
                )
                for row in rows
            ]
            for m in models
        ]
        ranks[how] = np.array([rankdata(v) for v in values])
    good = [row["solution_correct"] if invalid else 0 not in row["ratings"] for row in rows]
    return Labelled(np.array(good, bool), number_groups([row["split_group"] for row in rows]), ranks)


def wins(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """How often each of the first ranks is above each of the second, averaged over models, `[first, second]`."""
    return ((up[:, :, None] > down[:, None, :]) + 0.5 * (up[:, :, None] == down[:, None, :])).mean(axis=0)


def auc(good: np.ndarray, ranks: np.ndarray) -> float:
    """Mean AUC over models."""
    return float(wins(ranks[:, good], ranks[:, ~good]).mean())


def replicates(data: Labelled, how: str) -> np.ndarray:
    """Mean AUC over models in resamples of the questions; the same questions for every aggregation."""
    rng = np.random.default_rng(SEED)
    ranks, n = data.ranks[how], int(data.groups.max()) + 1
    counts = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)[:, data.groups].astype(float)
    up, down = counts[:, data.good], counts[:, ~data.good]
    order = wins(ranks[:, data.good], ranks[:, ~data.good])
    return ((up @ order) * down).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1))


def exchange_test(data: Labelled, a: str, b: str) -> float:
    """Two-sided p-value of the difference of two AUCs, if their ranks could be exchanged within each question."""
    rng, n = np.random.default_rng(SEED), int(data.groups.max()) + 1
    swap = (rng.random((RESAMPLES, n)) < 0.5)[:, data.groups]
    ranks = (data.ranks[a], data.ranks[b])
    differences = np.zeros(RESAMPLES)
    for i, up in enumerate(ranks):
        for j, down in enumerate(ranks):
            order = wins(up[:, data.good], down[:, ~data.good])
            # the exchanged a has the ranks of a where nothing is swapped, the exchanged b those of b
            for sign, own in ((1, 0), (-1, 1)):
                above = (swap[:, data.good] == (i != own)).astype(float)
                below = (swap[:, ~data.good] == (j != own)).astype(float)
                differences += sign * ((above @ order) * below).sum(axis=1)
    observed = abs(auc(data.good, ranks[0]) - auc(data.good, ranks[1]))
    differences /= data.good.sum() * (~data.good).sum()
    return float(((np.abs(differences) >= observed - 1e-12).sum() + 1) / (RESAMPLES + 1))


def compare_aggregations(sets: Mapping[str, Labelled], slug: str, metric: str) -> list[Comparison]:
    """All pairs of aggregations on one labelled set, by kind of model."""
    tests = []
    for name, data in sets.items():
        for a, b in PAIRS:
            ends = Interval(*map(float, percentiles(replicates(data, a) - replicates(data, b))), "bootstrap")
            difference = auc(data.good, data.ranks[a]) - auc(data.good, data.ranks[b])
            tests.append((name, a, b, difference, ends, exchange_test(data, a, b), data))
    rows = []
    for (name, a, b, difference, ends, p, data), adjusted in zip(tests, holm([t[5] for t in tests]), strict=True):
        rows.append(
            Comparison(
                id=f"recorded-step-rewards/{slug}-{name}-{a}-vs-{b}",
                a=f"{name}: {a}",
                b=b,
                metric=metric,
                n=len(data.good),
                clusters=int(data.groups.max()) + 1,
                seeds=1,
                difference=difference,
                low=ends.low,
                high=ends.high,
                test=f"rank exchange, {RESAMPLES:,} exchanges",
                p=p,
                p_adjusted=adjusted,
                status=claim_status(difference, ends, adjusted),
            )
        )
    return rows


def auc_rows(rows: Sequence[Row], models: Sequence[str], kind: str) -> list[tuple[str, ...]]:
    """AUC of each model under each aggregation, with its interval."""
    lines = []
    for model in models:
        data = labelled(rows, [model], kind)
        cells = [model]
        for how in AGGREGATIONS:
            low, high = percentiles(replicates(data, how))
            cells.append(f"{auc(data.good, data.ranks[how]):.3f} [{low:.3f}, {high:.3f}]")
        lines.append(tuple(cells))
    return lines


def length_auc(rows: Sequence[Row], good: np.ndarray) -> float:
    """AUC of the number of steps alone, fewer being better."""
    return auc(good, rankdata([-row["n_steps"] for row in rows])[None, :])


def altered_pairs(rows: Sequence[Row], model: str, kinds: Sequence[str]) -> dict[str, Outcomes]:
    """For each aggregation, how often the original scores above its altered copy, clustered by question."""
    originals = {(r["split_group"], r["question"]): r for r in rows if r["error_type"] is None}
    by_how: dict[str, dict[str, dict[int, float]]] = {how: {} for how in AGGREGATIONS}
    clusters = {}
    for row in rows:
        if row["error_type"] in kinds:
            original, name = originals[row["split_group"], row["question"]], f"{row['question_id']}|{row['error_type']}"
            clusters[name] = row["split_group"]
            for how in AGGREGATIONS:
                before, after = (
                    aggregate_scores([validity(s) for s in r["step_scores"][model]], how) for r in (original, row)
                )
                by_how[how][name] = {0: float(before > after) + 0.5 * (before == after)}
    return {how: Outcomes.of(scores, clusters) for how, scores in by_how.items()}


def first_alarm(scores: Sequence[float], threshold: float) -> int | None:
    """Number of the first step below a threshold, from 1; None without any."""
    return next((i for i, score in enumerate(scores, 1) if score < threshold), None)


def located(rows: Sequence[Row], scores: Sequence[Sequence[float]], threshold: float) -> np.ndarray:
    """Whether each solution is judged right: no alarm in a good one, else the first one at the first error."""
    return np.array(
        [first_alarm(s, threshold) == row["first_error_step"] for row, s in zip(rows, scores, strict=True)], float
    )


def balanced(good: np.ndarray, right: np.ndarray) -> float:
    """Harmonic mean of the shares judged right among good and among bad solutions."""
    a, b = right[good].mean(), right[~good].mean()
    return float(2 * a * b / (a + b)) if a + b else 0.0


def cross_fitted(rows: Sequence[Row], scores: Sequence[Sequence[float]]) -> tuple[np.ndarray, list[float]]:
    """Whether each solution is judged right with a threshold fitted on the other folds, and those thresholds."""
    groups = number_groups([row["split_group"] for row in rows])
    fold = np.random.default_rng(SEED).permutation(np.arange(groups.max() + 1) % FOLDS)[groups]
    good = np.array([row["solution_correct"] for row in rows], bool)
    grid = np.round(np.arange(0.02, 1.0, 0.02), 2)
    by_threshold = np.array([located(rows, scores, t) for t in grid])
    right, thresholds = np.zeros(len(rows)), []
    for k in range(FOLDS):
        train = fold != k
        best = int(np.argmax([balanced(good[train], r[train]) for r in by_threshold]))
        right[~train] = by_threshold[best, ~train]
        thresholds.append(float(grid[best]))
    return right, thresholds


def verdict_right(row: Row, judge: str) -> tuple[bool, bool, bool]:
    """Whether a judge is right in the first order, in the second, and by the sum of both."""
    first, second = row["judges"][judge]
    second = FLIPPED.get(second, second)
    total = sum(1 if v == row["label"] else -1 if v in FLIPPED else 0 for v in (first, second))
    return first == row["label"], second == row["label"], total > 0


def reward_right(row: Row, model: str) -> bool:
    """Whether a reward model prefers the right answer; a tie is wrong."""
    a, b = row["rewards"][model]
    return (a > b) if row["label"] == "A>B" else (b > a)


def share(values: Sequence[float] | np.ndarray) -> str:
    """A share in per cent with Wilson's interval."""
    ends = wilson(int(np.sum(values)), len(values))
    return f"{100 * np.mean(values):.1f} [{100 * ends.low:.1f}, {100 * ends.high:.1f}]"


def points(comparison: Comparison) -> str:
    """The difference in points."""
    return f"{100 * comparison.difference:.1f}"


def main() -> int:
    """Write the page and its comparisons."""
    args = arguments(__doc__).parse_args()
    rows = read(args.pools, args.side, "reasoneval")
    invalid = [row for row in rows if row["dataset"] == "mr_math_invalid"]
    redundant = [row for row in rows if row["dataset"] == "mr_math_redundant"]
    altered = [row for row in rows if row["dataset"] == "perturbation"]
    models = sorted(invalid[0]["step_scores"])
    families = {"Math-Shepherd": [SHEPHERD], "ReasonEval": [m for m in models if m != SHEPHERD]}

    on_invalid = {name: labelled(invalid, family, "invalid") for name, family in families.items()}
    on_redundant = {name: labelled(redundant, family, "redundant") for name, family in families.items()}
    of_invalid = compare_aggregations(on_invalid, "invalid", "AUC, invalid steps")
    of_redundant = compare_aggregations(on_redundant, "redundant", "AUC, redundant steps")

    tests, pair_rows = [], []
    for label, model in (("Math-Shepherd", SHEPHERD), ("ReasonEval 34B", "reasoneval_llemma-34b")):
        for what, kinds in (("same length", SAME_LENGTH), ("step removed", ("remove step",))):
            by_how = altered_pairs(altered, model, kinds)
            pair_rows.append(
                (
                    f"{label}, {what}",
                    *(f"{100 * by_how[how].p.mean():.1f}" for how in AGGREGATIONS),
                    str(len(by_how["min"].ids)),
                )
            )
            for a, b in PAIRS:
                slug = f"recorded-step-rewards/{what}-{label}-{a}-vs-{b}".replace(" ", "-")
                tests.append((slug, f"{label}, {what}: {a}", b, compare_paired(by_how[a], by_how[b])))
    of_pairs = compared(tests, metric="original above altered")

    good = np.array([row["solution_correct"] for row in invalid], bool)
    ids = [row["question_id"] for row in invalid]
    clusters = {row["question_id"]: row["split_group"] for row in invalid}

    def outcomes(right: np.ndarray) -> Outcomes:
        return Outcomes.of({name: {0: float(r)} for name, r in zip(ids, right, strict=True)}, clusters)

    tests, error_rows = [], []
    for model in models:
        scores = [step_scores(row, model) for row in invalid]
        fixed, (fitted, thresholds) = located(invalid, scores, 0.5), cross_fitted(invalid, scores)
        tests.append(
            (
                f"recorded-step-rewards/first-error-{model}",
                f"{model}, fitted",
                "0.5",
                compare_paired(outcomes(fitted), outcomes(fixed)),
            )
        )
        error_rows.append(
            (
                model,
                f"{100 * fixed[good].mean():.1f}",
                f"{100 * fixed[~good].mean():.1f}",
                f"{100 * balanced(good, fixed):.1f}",
                f"{100 * fitted[good].mean():.1f}",
                f"{100 * fitted[~good].mean():.1f}",
                f"{100 * balanced(good, fitted):.1f}",
                f"{min(thresholds):.2f} to {max(thresholds):.2f}",
            )
        )
    of_errors = compared(tests, metric="first error located")

    pairs = read(args.pools, args.side, "judgebench")
    rewarded = [row for row in pairs if row["rewards"]]
    reward_models = sorted(rewarded[0]["rewards"])
    names = {row["question_id"]: row["split_group"] if "split_group" in row else row["question_id"] for row in rewarded}

    def of_pairs_right(right: Sequence[float]) -> Outcomes:
        return Outcomes.of({name: {0: float(r)} for name, r in zip(names, right, strict=True)}, names)

    judge = [verdict_right(row, JUDGES[0])[2] for row in rewarded]
    reward_rows, tests = [], []
    for model in reward_models:
        right = [reward_right(row, model) for row in rewarded]
        reward_rows.append((model, share(np.array(right)), str(len(right))))
        slug = f"recorded-step-rewards/judgebench-o1-mini-vs-{model.split('/')[1]}"
        tests.append(
            (slug, "o1-mini, both orders", model, compare_paired(of_pairs_right(judge), of_pairs_right(right)))
        )
    of_judges = compared(tests, metric="right answer preferred")
    judge_rows = []
    for name in JUDGES:
        judged = [row for row in pairs if name in row["judges"]]
        verdicts = np.array([verdict_right(row, name) for row in judged])
        raw = [row["judges"][name] for row in judged]
        consistent = np.array([FLIPPED.get(second, second) == first for first, second in raw])
        decided = np.array([v in FLIPPED for pair in raw for v in pair])
        first_place = [v == "A>B" for pair in raw for v in pair if v in FLIPPED]
        judge_rows.append(
            (
                name,
                share(verdicts[:, 2]),
                share(verdicts[:, 0]),
                share(verdicts[:, 1]),
                share(consistent),
                f"{100 * decided.mean():.1f}",
                f"{100 * np.mean(first_place):.1f}",
                str(len(judged)),
            )
        )
    by_id = {c.id.partition("/")[2]: c for c in [*of_invalid, *of_redundant, *of_pairs, *of_errors, *of_judges]}
    mean_last, prod_last = by_id["invalid-ReasonEval-mean-vs-last"], by_id["invalid-ReasonEval-prod-vs-last"]
    shepherd = [c for c in of_invalid if c.a.startswith("Math-Shepherd")]
    differs = [c for c in shepherd if c.status != "not shown"]
    removed = by_id["step-removed-Math-Shepherd-mean-vs-prod"]
    removed34 = by_id["step-removed-ReasonEval-34B-mean-vs-prod"]
    best_reward = max(reward_rows, key=lambda row: float(row[1].split()[0]))
    shown_errors = [c for c in of_errors if c.status == "shown"]
    shown_judges = [c for c in of_judges if c.status == "shown"]
    lengths = [
        (kind, f"{length_auc(rows_of, sets['ReasonEval'].good):.3f}")
        for kind, rows_of, sets in (("invalid", invalid, on_invalid), ("redundant", redundant, on_redundant))
    ]
    clearest = min(of_judges, key=lambda c: c.p)
    sentences = (
        "For models that score each step by itself, the last step's score is the wrong summary of a solution.",
        f"Over the seven ReasonEval models the mean finds solutions with a wrong step by {points(mean_last)} points"
        f" of AUC better than the last score ({mean_last.status}, {adjusted_p(mean_last)}) {claim_marker(mean_last)},"
        f" and the product by {points(prod_last)} better than the last score ({prod_last.status},"
        f" {adjusted_p(prod_last)}) {claim_marker(prod_last)}.",
        "For Math-Shepherd, whose score of a step is the chance of a right end from there,"
        f" {'no difference between aggregations is' if not differs else 'differences between aggregations are'} shown.",
        "The product prefers short solutions: where a needed step was removed the mean notices it by"
        f" {points(removed)} points more often with Math-Shepherd ({removed.status}, {adjusted_p(removed)})"
        f" {claim_marker(removed)} and by {points(removed34)} with ReasonEval 34B ({removed34.status},"
        f" {adjusted_p(removed34)}) {claim_marker(removed34)}.",
        "So `best-of-n` takes the mean where one pass of a process reward model scores all steps, and else the last;"
        " searches keep the last: they compare prefixes, which is not measured here.",
        f"A threshold fitted by cross-fitting locates first errors {'better' if shown_errors else 'no better'} than 0.5"
        f" {'for ' + str(len(shown_errors)) + ' of' if shown_errors else 'for any of'} {len(of_errors)} models.",
        f"On JudgeBench o1-mini, asked in both orders, is right on {judge_rows[0][1]} % of the pairs and consistent on"
        f" {judge_rows[0][4]} %, and the best of five reward models is right on {best_reward[1]} %.",
        f"That o1-mini is better than {clearest.b.partition('/')[2]} is {clearest.status} ({adjusted_p(clearest)})"
        f" {claim_marker(clearest)}; than {len(of_judges) - len(shown_judges)} of the five it is not shown.",
    )
    error_head = ("model", *(f"{what}, {how}" for how in ("0.5", "fitted") for what in ("good", "bad", "balanced")))
    error_head += ("thresholds",)
    judge_head = (
        "judge",
        "right, %",
        "first order, %",
        "second order, %",
        "consistent, %",
        "decided, %",
        "first place, %",
    )
    judge_head += ("pairs",)
    known = [(m, *(f"{values[how]:.3f}" for how in ("min", "prod", "last"))) for m, values in PUBLISHED.items()]
    text = f"""# Step rewards on recorded scores: details

{fill(f"**{' '.join(sentences)}**", 130, break_on_hyphens=False)}

The {args.side} half: {len(invalid)} solutions with right final answers, {int((~good).sum())} of them with a wrong step;
{len(redundant)} with redundancy labels; {len(altered)} for pairs of an original and an altered copy. To be confirmed on
the held-out half. The aggregation is the project's own (`reason.reasoning.step_rewards.aggregate_scores`).

## Solutions with a wrong step

AUC of the aggregated validity, with the interval over questions:

{table(("model", *AGGREGATIONS), auc_rows(invalid, models, "invalid"))}

The whole pool (known before):

{table(("model", "min", "prod", "last"), known)}

{comparisons_table(of_invalid)}

Differences are in points of AUC; ReasonEval is the mean over its seven models. AUC of fewer steps
alone: {lengths[0][1]}.

## Redundant steps

AUC of 1 - p(redundant), aggregated alike (Math-Shepherd has only its one score). AUC of fewer steps alone:
{lengths[1][1]}.

{table(("model", *AGGREGATIONS), auc_rows(redundant, models, "redundant"))}

{comparisons_table(of_redundant)}

## Originals and altered copies

How often the original scores above its altered copy, in %; a tie counts half. Copies of the same length have a number
or an operation changed or two steps swapped; the others lack a step.

{table(("model and copies", *AGGREGATIONS, "pairs"), pair_rows)}

{comparisons_table(of_pairs)}

## First wrong step

The first step below the threshold is the alarm. A good solution is judged right without an alarm, a bad one if the
alarm is at its first wrong step; "balanced" is the harmonic mean of both, in %. The threshold is 0.5, or the best of
0.02 to 0.98 on the other folds ({FOLDS} folds of questions).

{table(error_head, error_rows)}

{comparisons_table(of_errors)}

The comparison is of the share of all solutions judged right.

## JudgeBench

Reward models on the pairs of GPT-4o (Wilson's intervals):

{table(("reward model", "right, %", "pairs"), reward_rows)}

Judges, asked in both orders; "right" by the sum of both verdicts, as the benchmark does:

{table(judge_head, judge_rows)}

*Consistent*: the same answer, or a tie, in both orders. *First place*: share of decided verdicts for the answer shown
first. claude-3-haiku judged other pairs (those of Claude 3.5 Sonnet); the two judges are not comparable.

{comparisons_table(of_judges)}

## How it was measured

<!-- not run: it measures for hours -->
```bash
python benchmarks/recorded/step_rewards.py --pools DIR --side {args.side} --docs docs
```

`{fingerprint(args.pools, args.side, "reasoneval")}`, `{fingerprint(args.pools, args.side, "judgebench")}`;
GAIR-NLP/ReasonEval @ 6c91c7a and ScalerLab/JudgeBench @ e2c52c2, no licence file: scores and labels only.
{RESAMPLES:,} resamples and exchanges, seed {SEED}. Each table of comparisons is one family for Holm.

## Limits

- All solutions of the first set have right final answers: finding a wrong step is measured, not choosing a right
  answer. Solutions of different questions are compared, which best-of-n never does; the altered copies are of one
  question, but made by rule.
- The scores are of models of 7 and 34 billion parameters of 2023 and 2024. No judge of steps is in the record.
"""
    comparisons = [*of_invalid, *of_redundant, *of_pairs, *of_errors, *of_judges]
    page = write_results(args.docs, "recorded_step_rewards", text, comparisons)
    print(f"wrote {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
