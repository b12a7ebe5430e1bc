"""`auto` on recorded answers: quality over cost, beside the best fixed action, random mixes and the oracle.

    python benchmarks/auto_router.py --pools DIR --docs docs --vectors FILE.npz

An action is a model, its effort, and the number of its samples that vote: fixed, or by a stopping rule. The arms,
features, fits and areas are those of `training/routers`; every question is routed by a fit without its fold.
`--vectors` is a file of the questions' embeddings, as of `benchmarks/recorded/routing.py`; those that it lacks are
computed and added. `--texts` is a directory with the questions of GSM8K and AIME, whose texts the pools lack.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from cost_curves import CostCurves, cost_curves
from reason.core.blas_threads import one_blas_thread
from reason.core.files import question_digest
from reason.core.types import AnswerKind, Question
from reason.evals.calibration import assign_folds
from reason.evals.statistics.intervals import bootstrap_means, percentiles
from reason.evals.statistics.outcomes import Outcomes
from reason.evals.statistics.paired import compare_paired
from reason.reasoning.stopping import Lead, Tally
from reason.routers.features import QuestionFeatures, named_features
from reporting import Comparison, compared, comparisons_table, table, write_results

sys.path.append(str(Path(__file__).resolve().parent / "recorded"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "training" / "routers"))

from arm_table import ArmSpec, ArmTable, Sample
from auto_training import cross_validated_arms
from data import Row, arguments, fingerprint, read
from fitting import FOLDS, QuestionSignals
from policies import MeasuredArms, PredictedArms
from routing import COMPLETION_TOKENS, LARGE_PRICE, PROMPT_TOKENS, SMALL_PRICE, Embedded, key_of, smallest, vectors_of

NAME = "auto_router"
SEEDS = range(10)
"""Orders of the recorded samples; each is a seed of every action."""
RESAMPLES = 10_000
RULE = Lead()
MIN_GAP = 0.01
"""Gain of accuracy from the cheapest action to the most accurate one below which there is nothing to choose."""
MMLU_QUESTIONS = 1500
MIXTRAL, GPT4 = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
MIXTRAL_PRICE = 0.01
"""Of a call of Mixtral, one of GPT-4 being 1: the order of the list prices of 2024."""
SHOWN = (0, 10, 20, 30, 40)
"""Costs that the details show."""

Cell = list[Sample]
"""The samples of one action on one question, by seed."""


@dataclass(frozen=True)
class Problem:
    """Recorded answers to choose among.

    Attributes:
        name: Short name, part of the claims' ids.
        title: What it is.
        cost: Unit of the costs.
        table: The answers.
        signals: The features of the questions.
    """

    name: str
    title: str
    cost: str
    table: ArmTable
    signals: QuestionSignals


@dataclass(frozen=True)
class Result:
    """A problem with its curves.

    Attributes:
        curves: Of `auto`, and of the ways that it is compared with.
        means: Of the choice by the mean score and cost of each action on the other folds: the random mixes that can be
            had without knowledge of these questions.
    """

    problem: Problem
    measured: MeasuredArms
    curves: CostCurves
    means: CostCurves


# -- tables


def vote(samples: Sequence[Row]) -> Sample:
    """The plurality of samples, of equal answers the one reached first."""
    answers = [row["answer"] for row in samples if row["answer"] is not None]
    tokens = float(sum(row["completion_tokens"] or 0 for row in samples))
    if not answers:
        return Sample(0.0, tokens, tokens)
    ((winner, _),) = Counter(answers).most_common(1)
    right = next(row["correct"] for row in samples if row["answer"] == winner)
    return Sample(float(right), tokens, tokens)


def settled(samples: Sequence[Row]) -> Sequence[Row]:
    """The first samples, as many as the default stopping rule of `adaptive` takes one by one."""
    numbers: dict[str, int] = {}
    labels = [None if r["answer"] is None else numbers.setdefault(r["answer"], len(numbers)) for r in samples]
    for n in range(1, len(samples)):
        if RULE.should_stop(Tally(labels=tuple(labels[:n]))):
            return samples[:n]
    return samples


def voted(rows: Sequence[Row], counts: Sequence[int], name: object, *, rule: bool = True) -> list[Cell]:
    """Votes of the first n samples in several orders, by n, and of as many as the stopping rule takes.

    Args:
        rows: All samples of a question and a model.
        name: Seeds the orders.
        rule: Whether the stopping rule is an action.
    """
    digest = int(key_of(str(name))[:8], 16)
    orders = [np.random.default_rng([seed, digest]).permutation(len(rows))[: max(counts)] for seed in SEEDS]
    drawn = [[rows[int(i)] for i in order] for order in orders]
    cells = [[vote(samples[:n]) for samples in drawn] for n in counts]
    return [*cells, [vote(settled(samples)) for samples in drawn]] if rule else cells


def action(model: str, n: int | str, effort: str | None = None) -> ArmSpec:
    """A model with its effort and samples."""
    return ArmSpec(model, {"n": n}, "main", (), cast(Any, effort), 1.0, 0.0)


def table_of(
    questions: Sequence[Question], groups: Sequence[str], arms: Sequence[ArmSpec], cells: Sequence[Sequence[Cell]]
) -> ArmTable:
    """Recorded samples as the table that a router is fitted to.

    Args:
        cells: By question and arm.
    """
    seeds = max(len(cell) for row in cells for cell in row)
    samples = np.array([[[*cell, *[cell[-1]] * (seeds - len(cell))] for cell in row] for row in cells], dtype=float)
    return ArmTable(
        questions=tuple(questions),
        digests=tuple(question_digest(question.text) for question in questions),
        groups=tuple(groups),
        arms=tuple(arms),
        samples=samples,
        models={"main": "recorded"},
        engines={"main": "recorded"},
        runs=(),
        datasets={},
        seeds=tuple(range(seeds)),
    )


def sampled(
    name: str,
    title: str,
    rows: Iterable[Row],
    counts: Sequence[int],
    *,
    texts: Mapping[str, str] | None = None,
    kind: str = "auto",
    efforts: Mapping[str, str] | None = None,
) -> Problem:
    """Models that were sampled several times; a question without text has no features but its kind.

    Args:
        counts: Numbers of samples that vote.
        kind: Kind of the answers of questions without text.
        efforts: Effort by model, where the models are one model's efforts.
    """
    by_model: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_model[row["model"]][row["question_id"]].append(row)
    ids = list(next(iter(by_model.values())))
    arms, columns = [], []
    for model, own in by_model.items():
        effort = (efforts or {}).get(model)
        arms += [
            action(model.rpartition("/")[2] if effort is None else "o3-mini", n, effort) for n in (*counts, "lead")
        ]
        columns.append([voted(own[i], counts, (model, i)) for i in ids])
    cells = [[cell for column in columns for cell in column[q]] for q in range(len(ids))]
    first = next(iter(by_model.values()))
    questions = [
        Question(text=(texts or {}).get(i, "?"), kind=cast(AnswerKind, kind_of(first[i][0], kind))) for i in ids
    ]
    signals = tuple(QuestionFeatures(named_features(question)) for question in questions)
    return Problem(name, title, "tokens", table_of(questions, ids, arms, cells), QuestionSignals(signals))


def kind_of(row: Row, kind: str) -> str:
    """The kind of a question's answer: AIME's are numbers, GPQA's letters, which count as text here."""
    return {"aime2024": "number", "gpqa_diamond": "text"}.get(row["dataset"], kind)


def two_models(name: str, title: str, rows: Sequence[Row], embedded: Embedded) -> Problem:
    """Mixtral or GPT-4, one recorded answer each."""
    arms = [action("Mixtral-8x7B", 1), action("GPT-4", 1)]
    prices = (MIXTRAL_PRICE, 1.0)
    cells = []
    for row in rows:
        cells.append(
            [[Sample(float(row["correct"][m]), price, price)] for m, price in zip((MIXTRAL, GPT4), prices, strict=True)]
        )
    return embedded_problem(name, title, "calls of GPT-4", rows, arms, cells, embedded)


def eleven_models(rows: Sequence[Row], embedded: Embedded) -> Problem:
    """RouterBench's models, one recorded answer each."""
    models = sorted(rows[0]["scores"])
    arms = [action(model.rpartition("/")[2], 1) for model in models]
    cells = [
        [
            # millionths of a dollar, so that logarithms of 1 + cost are far from 0
            [Sample(float(row["scores"][m]), 1e6 * row["costs"][m], 1e6 * row["costs"][m])]
            for m in models
        ]
        for row in rows
    ]
    title = "eleven models; ARC, MBPP, Winogrande (RouterBench)"
    return embedded_problem("routerbench", title, "millionths of a dollar", rows, arms, cells, embedded)


def date(rows: Sequence[Row], embedded: Embedded) -> Problem:
    """GPT-3.5's chains of thought and programs, and GPT-4's chain, on DATE."""
    counts = (1, 2, 4, 8)
    small: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    large: dict[str, Row] = {}
    for row in rows:
        if row["model"] == "gpt-3.5-turbo" and row["temperature"] == "unstated" and row["prompt"] in ("cot1", "pot1"):
            small[row["question_id"]][row["prompt"]].append(row)
        elif row["model"] == "gpt-4" and row["prompt"] == "cot1" and row["temperature"] == "0":
            large[row["question_id"]] = row

    def priced(sample: Sample, price: tuple[float, float], n: int) -> Sample:
        dollars = 1e6 * n * (price[0] * PROMPT_TOKENS + price[1] * COMPLETION_TOKENS) / 1000
        return sample._replace(tokens=dollars, cost=dollars)

    prompts = {"cot1": "GPT-3.5 CoT", "pot1": "GPT-3.5 PoT"}
    arms = [action(label, n) for label in prompts.values() for n in counts] + [action("GPT-4", 1)]
    cells = []
    for name, by_prompt in small.items():
        row: list[Cell] = []
        for prompt in prompts:
            several = voted(by_prompt[prompt], counts, (prompt, name), rule=False)
            row += [[priced(s, SMALL_PRICE, n) for s in cell] for n, cell in zip(counts, several, strict=True)]
        cells.append([*row, [priced(vote([large[name]]), LARGE_PRICE, 1)] * len(SEEDS)])
    shown = [large[name] for name in small]
    title = "GPT-3.5 and GPT-4; DATE"
    return embedded_problem("date", title, "millionths of a dollar", shown, arms, cells, embedded)


def embedded_problem(
    name: str,
    title: str,
    cost: str,
    rows: Sequence[Row],
    arms: Sequence[ArmSpec],
    cells: Sequence[Sequence[Cell]],
    embedded: Embedded,
) -> Problem:
    """A problem whose questions have texts."""
    questions = [Question(text=row["question"]) for row in rows]
    groups = [row.get("split_group") or f"{row['dataset']}:{row['question_id']}" for row in rows]
    signals = embedded.gathered(embedded.signals(rows))
    return Problem(name, title, cost, table_of(questions, groups, arms, cells), signals)


# -- results


def solve(problem: Problem) -> Result:
    """Route every question by a fit without its fold."""
    with one_blas_thread():
        measured = cross_validated_arms(problem.table, problem.signals.signals, problem.signals, FOLDS)
    found = [cost_curves(replace(measured, predicted=p)) for p in (measured.predicted, fold_means(problem))]
    return Result(problem, measured, *(cast(CostCurves, one) for one in found))


def fold_means(problem: Problem) -> PredictedArms:
    """The mean score and cost of each action on the other folds."""
    table_ = problem.table
    fold = assign_folds(table_.groups, FOLDS)
    right, cost = np.empty(table_.right.shape), np.empty(table_.right.shape)
    for number in range(FOLDS):
        held, rest = fold == number, fold != number
        right[held], cost[held] = table_.right[rest].mean(axis=0), table_.cost[rest].mean(axis=0)
    return PredictedArms(right, cost)


def area_interval(result: Result) -> tuple[float, float]:
    """95% interval of the area of `auto` over resamples of question groups, at the gap that was measured."""
    curves = result.curves
    over_cheapest = curves.scores("auto") - curves.cheapest
    low, high = percentiles(bootstrap_means(over_cheapest, result.measured.clusters, resamples=RESAMPLES))
    return float(low) / curves.gap, float(high) / curves.gap


def comparisons_of(results: Sequence[Result]) -> list[Comparison]:
    """The comparisons of the table: `auto` with the best action and random mixes."""
    rows = []
    for result in results:
        name, clusters = result.problem.name, result.measured.clusters

        def scored(values: Any, clusters: Any = clusters) -> Outcomes:
            return Outcomes(tuple(map(str, range(len(values)))), clusters, values[:, None])

        own = scored(result.curves.scores("auto"))
        against = {
            "best-action": ("best action", result.curves.scores("fixed")),
            "random-mix": ("random mixes", result.curves.scores("mix")),
            "learnt-mix": ("random mixes of the other folds", result.means.scores("auto")),
        }
        rows += [
            (f"auto-router/{name}-vs-{key}", f"{name}: auto", label, compare_paired(own, scored(values)))
            for key, (label, values) in against.items()
        ]
    return compared(rows, metric="accuracy, mean over costs")


def areas_table(results: Sequence[Result]) -> str:
    """The areas of all problems."""
    lines = []
    for result in results:
        curves = result.curves
        low, high = area_interval(result)
        lines.append(
            (
                result.problem.title,
                f"{len(result.problem.table.questions):,}",
                str(len(result.measured.labels)),
                f"{100 * curves.floor:.1f} to {100 * (curves.floor + curves.gap):.1f}",
                f"{curves.area('fixed'):.3f}",
                f"{curves.area('mix'):.3f}",
                f"{result.means.area('auto'):.3f}",
                f"{curves.area('auto'):.3f} [{low:.2f}, {high:.2f}]",
                f"{curves.area('oracle'):.3f}",
            )
        )
    head = (
        "answers",
        "questions",
        "actions",
        "correct %",
        "best action",
        "random mixes",
        "learnt mixes",
        "auto",
        "oracle",
    )
    return table(head, lines)


def curve_table(result: Result) -> str:
    """Accuracy at some costs."""
    own = result.curves
    ways = {
        "best action": (own, "fixed"),
        "random mixes": (own, "mix"),
        "learnt mixes": (result.means, "auto"),
        "`auto`": (own, "auto"),
        "oracle": (own, "oracle"),
    }
    lines = [
        (label, *(f"{100 * curves.curves[way][i].mean():.1f}" for i in SHOWN), f"{curves.area(way):.3f}")
        for label, (curves, way) in ways.items()
    ]
    return table(
        (f"correct % at a cost, {result.problem.cost}", *(f"{own.budgets[i]:,.3g}" for i in SHOWN), "area"), lines
    )


def gap(problem: Problem) -> float:
    """Gain of accuracy from the cheapest action to the most accurate one."""
    means, costs = problem.table.right.mean(axis=0), problem.table.cost.mean(axis=0)
    return float(means.max() - means[int(costs.argmin())])


def page(
    results: Sequence[Result],
    left_out: Sequence[Problem],
    comparisons: Sequence[Comparison],
    prints: str,
    embedding: str,
) -> str:
    """The details page."""
    flat = "; ".join(f"{p.title} ({100 * gap(p):+.1f} points)" for p in left_out)
    sections = "\n\n".join(f"## {result.problem.title}\n\n{curve_table(result)}" for result in results)
    return f"""# `auto` on recorded answers: details

The conclusion is on [the page](../auto.md).

{areas_table(results)}

Areas under the curve of quality over cost, the mean over 41 costs that rise by equal factors from the cheapest action's
to that of the most accurate one, as the part of the gap in accuracy between the two that is recovered. *Random mixes*
of two actions are the convex hull of the actions; *learnt mixes* are those that the other folds suggest.
Intervals of `auto`: bootstrap of the gain over the cheapest action by
question group, {RESAMPLES:,} resamples.

Left out, as the cheapest action is within {100 * MIN_GAP:.0f} point of the most accurate one: {flat}.

## Comparisons

{comparisons_table(comparisons)}

{sections}

## How it was measured

<!-- not run: it measures for hours -->
```bash
python benchmarks/auto_router.py --pools POOLS --texts DATA --docs docs --vectors vectors.npz
```

- **Choice.** Each question is routed by a fit without its fold ({FOLDS} folds of question groups): arms and
  complexity are all fitted again. A policy belongs to each price of tokens; at a cost `auto` is the
  random mix of the two policies next to it in cost. `auto` never sees the questions that it is measured on; the best
  action and the random mixes of two actions are chosen with knowledge of their mean scores there, which favours them.
- **Actions.** Votes of 1, 2, 4, 8 and (gpt-4o-mini) 16 samples of each model or effort, and as many as the rule `lead`
  of `adaptive` takes at its defaults; single answers where a pool has one.
- **Samples.** A sampled action takes the first n of the recorded samples in {len(SEEDS)} random orders, a seed each, in
  which all actions of a model share samples; scores are means over them.
- **Features.** The named features of `auto`, and embeddings of {embedding} where the pool has the question's text
  (RouteLLM, RouterBench, DATE). Questions of GPQA and MedQA have no text here and no features.
  No first-token entropy, which needs the model.
- **Costs.** Tokens as recorded, those of all models alike. RouteLLM: a call of Mixtral costs {MIXTRAL_PRICE:g} of one
  of GPT-4, an assumption. RouterBench: dollars as recorded. DATE: OpenAI's list prices of July 2023 and **assumed**
  lengths ({PROMPT_TOKENS} prompt tokens, billed with every sample, and {COMPLETION_TOKENS} tokens a chain).
- **Tests.** Sign flips by question group of the mean score over costs; Holm's correction over all rows of the table.

Fingerprints: {prints}.
"""


def texts_of(directory: Path, *names: str) -> dict[str, str]:
    """The questions of data sets by id."""
    found = {}
    for name in names:
        for line in (directory / name / "dev.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found[str(row["id"])] = row.get("question") or row.get("problem")
    return found


def main() -> None:
    """Write the page and the comparisons."""
    parser = arguments(__doc__)
    parser.add_argument("--vectors", type=Path, required=True, help="file of the questions' embeddings (.npz)")
    parser.add_argument("--texts", type=Path, required=True, help="directory with gsm8k/ and aime/")
    parser.add_argument("--only", nargs="*", help="names of some problems, printed instead of written")
    args = parser.parse_args()
    pools = (args.pools, args.side)
    texts = texts_of(args.texts, "gsm8k", "aime")
    consol, two = read(*pools, "consol"), read(*pools, "routellm")
    gsm8k = [row for row in two if row["dataset"] == "gsm8k"]
    mmlu = smallest((row for row in two if row["dataset"] == "mmlu"), MMLU_QUESTIONS)
    bench = [row for row in read(*pools, "routerdc") if row["suite"] == "routerbench"]
    dates = read(*pools, "mot_date")
    needed = [row["question"] for rows in (gsm8k, mmlu, bench, dates) for row in rows]
    vectors, name, identity = asyncio.run(vectors_of(sorted(set(needed)), args.vectors))
    embedded = Embedded(vectors, name, identity)
    efforts = {f"o3-mini-{effort}": effort for effort in ("low", "medium", "high")}
    models = read(*pools, "art_of_tts")

    def only(rows: Iterable[Row], dataset: str) -> list[Row]:
        return [row for row in rows if row["dataset"] == dataset]

    problems = [
        sampled(
            "o3-mini-aime",
            "o3-mini low, medium, high; AIME 2024",
            only(consol, "aime2024"),
            (1, 2, 4, 8),
            texts=texts,
            efforts=efforts,
        ),
        sampled("eight-models", "eight thinking models; AIME 2024, GPQA", models, (1, 2, 4, 8)),
        sampled("o3-mini-gpqa", "o3-mini low; GPQA", only(consol, "gpqa_diamond"), (1, 2, 4, 8, 16)),
        sampled(
            "gpt-4o-mini-gsm8k",
            "gpt-4o-mini; GSM8K",
            only(consol, "gsm8k"),
            (1, 2, 4, 8, 16),
            texts=texts,
            kind="number",
        ),
        sampled("gpt-4o-mini-medqa", "gpt-4o-mini; MedQA", only(consol, "medqa"), (1, 2, 4, 8, 16)),
        date(dates, embedded),
        two_models("routellm-gsm8k", "Mixtral, GPT-4; GSM8K (RouteLLM)", gsm8k, embedded),
        two_models("routellm-mmlu", "Mixtral, GPT-4; MMLU (RouteLLM)", mmlu, embedded),
        eleven_models(bench, embedded),
    ]
    results = []
    left_out = [problem for problem in problems if gap(problem) < MIN_GAP]
    for problem in problems:
        if (args.only and problem.name not in args.only) or any(problem is flat for flat in left_out):
            continue
        print(f"{problem.name}: {len(problem.table.questions)} questions", file=sys.stderr)
        results.append(solve(problem))
    comparisons = comparisons_of(results)
    if args.only:
        print(areas_table(results), comparisons_table(comparisons), *map(curve_table, results), sep="\n\n")
        return
    prints = "; ".join(fingerprint(*pools, p) for p in ("consol", "art_of_tts", "mot_date", "routellm", "routerdc"))
    text = page(results, left_out, comparisons, prints, f"{name} ({identity[:12]})")
    write_results(args.docs, NAME, text, comparisons)


if __name__ == "__main__":
    main()
