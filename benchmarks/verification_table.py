"""Verification on every development set: what ships, beside majority class, word overlap and the judge alone.

    python benchmarks/verification_table.py judge --judge base --work runs/verification --data fever=DATA/fever …
    python benchmarks/verification_table.py table --judges small base --work runs/verification --data … --docs docs

`judge` stores the verdicts on all pairs in `runs/verification/verdicts.sqlite`, and can be stopped and resumed.
`table` judges what is not stored, and writes the marked parts of `results/verification.md` and of its details, and the
curves.

`--data NAME=PATH` names datasets of training/judge/labelled_claims.py. `--trained NAME=PATH` names the file that the
judges were trained on a share of, if it is another; only claims outside of that share are measured. Intervals: 95 %,
1,000 bootstrap resamples of groups of claims. Differences: McNemar's exact test, adjusted over the sets by Holm's
method.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import re
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "training" / "judge"))

from cases import parse_paths
from labelled_claims import MAX_CLAIMS, EvaluationSet, read_evaluation_sets
from reason.core.errors import UserError
from reason.core.settings import Settings, load_settings
from reason.core.version import __version__
from reason.evals.datasets.records import find_files, sha256_of
from reason.evals.statistics.paired import holm
from reason.verify.davinci.decision import DavinciConfig, DecisionRule, decision_rule_for
from reason.verify.entailment.embedded import load_embedded
from reason.verify.entailment.factory import load_entailment
from reason.verify.fusion import Mode
from reason.verify.types import Entailment
from reporting import p_value, processor, table
from verdict_metrics import ECE_BY_CHANCE, VerdictMetrics, difference, top_label_hits, verdict_metrics
from verdicts import (
    ClaimVerdict,
    JudgedClaim,
    StoredEntailment,
    VerdictStore,
    decide_claim,
    examples_of,
    fitted_without,
    judge_alone,
    judge_claims,
    majority,
    without_abstaining,
)

LEXICAL = "lexical"
ALONE, SHIPPED, HELD_OUT = "judge alone", "decision", "decision, fitted without the dataset"
TWO_LABELS = "two labels"
ABSTAINING = ("false_supported", "answered")
"""Metrics that say nothing where abstaining is no answer."""
TIMED_CLAIMS = 100


@dataclass(frozen=True)
class Method:
    """One row: a judge, and how its verdicts on passages become one."""

    judge: str
    way: str

    @property
    def title(self) -> str:
        """Its name in tables."""
        return f"{self.judge}, {self.way}" if self.judge and self.judge != LEXICAL else self.judge or self.way


MAJORITY = Method("", "majority class")


@dataclass(frozen=True)
class Measurement:
    """A set, with or without abstaining, by every method.

    Attributes:
        key: The set's key; with "two labels" where abstaining is no answer.
        title: Its title.
        claims: What is measured.
        verdicts: What each method states, in the order of claims.
        metrics: The metrics of each.
    """

    key: str
    title: str
    claims: tuple[JudgedClaim, ...]
    verdicts: dict[Method, list[ClaimVerdict]]
    metrics: dict[Method, VerdictMetrics]


@dataclass(frozen=True)
class Judged:
    """All sets as a judge sees them."""

    identity: str
    by_set: dict[str, list[JudgedClaim]]


@dataclass(frozen=True)
class Cost:
    """What a claim with five passages costs, judged afresh."""

    judge: str
    ms: float
    pairs: float


async def open_judge(name: str, settings: Settings) -> Entailment:
    """A judge by its name, or `small=FILE` or `base=FILE`: an embedded one with other weights."""
    size, equals, file = name.partition("=")
    if equals:
        if size != "small" and size != "base":
            raise UserError(f"{size!r} is no embedded judge", hint="name small=FILE or base=FILE")
        return await load_embedded(settings, size=size, file=Path(file))
    return await load_entailment(name, settings)


async def judge_sets(
    sets: Sequence[EvaluationSet], name: str, settings: Settings, store: VerdictStore, limit: int | None = None
) -> Judged:
    """Judge every set; what the store has is not judged again."""
    judge = await open_judge(name, settings)
    entailment = StoredEntailment(judge, store)
    by_set: dict[str, list[JudgedClaim]] = {}
    try:
        for one in sets:
            began, before = time.monotonic(), entailment.num_judged
            by_set[one.key] = await judge_claims(one.rows[:limit], entailment)
            fresh, seconds = entailment.num_judged - before, time.monotonic() - began
            rate = f", {fresh / seconds:,.0f} a second" if fresh and seconds else ""
            log(f"{name}: {one.key}: {len(by_set[one.key]):,} claims, {fresh:,} new pairs{rate}")
    finally:
        await entailment.aclose()
    return Judged(judge.identity, by_set)


async def time_judge(rows: EvaluationSet, name: str, settings: Settings) -> Cost:
    """Milliseconds and pairs of a claim, of the first claims of a set, without a store."""
    entailment = await open_judge(name, settings)

    class Counted:
        """The judge, counting its pairs."""

        name, identity, max_words = entailment.name, entailment.identity, entailment.max_words
        pairs = 0

        async def judge(self, pairs: Sequence[object]) -> list[object]:
            Counted.pairs += len(pairs)
            return await entailment.judge(pairs)  # type: ignore[arg-type, return-value]

        async def aclose(self) -> None:
            await entailment.aclose()

    counted = Counted()
    try:
        await judge_claims(rows.rows[:4], counted)  # type: ignore[arg-type]
        Counted.pairs = 0
        began = time.perf_counter()
        judged = await judge_claims(rows.rows[:TIMED_CLAIMS], counted)  # type: ignore[arg-type]
        seconds = time.perf_counter() - began
    finally:
        await entailment.aclose()
    return Cost(name, 1000 * seconds / len(judged), Counted.pairs / len(judged))


def measure(sets: Sequence[EvaluationSet], judged: dict[str, Judged], seed: int = 0) -> list[Measurement]:
    """All sets by all methods; sets of two labels also without abstaining."""
    ways: dict[Method, Callable[[EvaluationSet, JudgedClaim], ClaimVerdict]] = {}
    for name, one in judged.items():
        ways[Method(name, ALONE)] = lambda _, claim: judge_alone(claim)
        if name == LEXICAL:
            continue
        rule = decision_rule_for(DavinciConfig(judge=name), one.identity)
        fitted = [
            replace(example, part=s.key) for s in sets if s.is_fitted for example in examples_of(one.by_set[s.key])
        ]
        if name == list(judged)[-1]:
            for mode in get_args(Mode):
                fused = DecisionRule(mode=mode)
                ways[Method(name, f"fused by {mode}")] = lambda _, claim, rule=fused: decide_claim(claim, rule)  # type: ignore[misc]
        refits = {s.dataset: fitted_without(fitted, s.dataset, rule, judge=one.identity) for s in sets}
        ways[Method(name, SHIPPED)] = lambda _, claim, rule=rule: decide_claim(claim, rule)  # type: ignore[misc]
        ways[Method(name, HELD_OUT)] = lambda s, claim, refits=refits: refits[s.dataset](claim)  # type: ignore[misc]
    results = []
    for one_set in sets:
        claims = tuple(next(iter(judged.values())).by_set[one_set.key])
        has_disputed = any(claim.row.gold == "disputed" for claim in claims)
        verdicts = {MAJORITY: majority(claims)}
        for method, way in ways.items():
            own = [way(one_set, claim) for claim in judged[method.judge].by_set[one_set.key]]
            # where no claim is disputed, that verdict leaves a claim as open as "not enough evidence"
            verdicts[method] = [
                v._replace(label="neutral") if v.label == "disputed" and not has_disputed else v for v in own
            ]
        results.append(_measurement(one_set.key, one_set.title, claims, verdicts, seed))
        if one_set.two_labels:
            forced = {
                method: own if method == MAJORITY else [without_abstaining(v) for v in own]
                for method, own in verdicts.items()
            }
            title = f"{one_set.title}, {TWO_LABELS}"
            results.append(_measurement(f"{one_set.key}: {TWO_LABELS}", title, claims, forced, seed))
        log(f"{one_set.key}: measured")
    return results


def _measurement(
    key: str, title: str, claims: tuple[JudgedClaim, ...], verdicts: dict[Method, list[ClaimVerdict]], seed: int
) -> Measurement:
    golds = [one.row.gold for one in claims]
    groups = [one.row.group or one.row.name for one in claims]
    metrics = {
        method: verdict_metrics(golds, [v.label for v in own], [v.probs for v in own], groups, seed=seed)
        for method, own in verdicts.items()
    }
    return Measurement(key, title, claims, verdicts, metrics)


# -- tables


def cell(metrics: VerdictMetrics, name: str, *, interval: bool = True) -> str:
    """A metric with its interval; empty where there is none."""
    if name not in metrics.values:
        return ""
    e = metrics.estimate(name) if interval else None
    return f"{metrics.values[name]:.3f}" if e is None else f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]"


def summary_table(results: Sequence[Measurement], judge: str, other: str | None) -> str:
    """A row a set: accuracy of each method, and what ships in more detail."""
    shipped, held_out, alone = Method(judge, SHIPPED), Method(judge, HELD_OUT), Method(judge, ALONE)
    methods = [MAJORITY, Method(LEXICAL, ALONE), *([Method(other, SHIPPED)] if other else []), alone, shipped, held_out]
    head = [
        *("set", "n", "majority", "words", *([other] if other else []), f"{judge} alone", judge, f"{judge}, held out"),
        *("macro F1", "ECE", "by chance", "ECE, held out", "false supported", "false supported, held out", "answered"),
    ]
    rows = []
    for one in results:
        more = [(shipped, "macro_f1"), (shipped, "ece"), (shipped, ECE_BY_CHANCE), (held_out, "ece")]
        more += [(shipped, "false_supported")]
        more += [(held_out, "false_supported"), (shipped, "answered")]
        forced = one.key.endswith(TWO_LABELS)
        rows.append(
            [
                one.title,
                f"{len(one.claims):,}",
                *(cell(one.metrics[m], "accuracy", interval=m == shipped) if m in one.metrics else "" for m in methods),
                *(
                    "" if forced and name in ABSTAINING else cell(one.metrics[m], name, interval=False)
                    for m, name in more
                ),
            ]
        )
    return table(head, rows)


def set_table(one: Measurement) -> str:
    """Every metric of every method on a set."""
    names = ("accuracy", "macro_f1", "ece", "brier", "aurc", "false_supported", "wrong_supported", "answered")
    head = [
        "method",
        "accuracy",
        "macro F1",
        "ECE",
        "Brier",
        "AURC",
        "false supported",
        "wrong of supported",
        "answered",
    ]
    return table(
        head,
        [
            [method.title, *(cell(m, name, interval=name in ("accuracy", "false_supported")) for name in names)]
            for method, m in one.metrics.items()
        ],
    )


def difference_table(results: Sequence[Measurement], judge: str) -> str:
    """What ships against the judge alone: accuracy, and McNemar's test adjusted over the sets."""
    shipped, alone = Method(judge, SHIPPED), Method(judge, ALONE)
    pairs = [difference(one.metrics[shipped], one.metrics[alone]) for one in results]
    rows = []
    for one, d, adjusted in zip(results, pairs, holm([d.p for d in pairs]), strict=True):
        e = d.metrics["accuracy"]
        gap = f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}]"
        rows.append([one.title, gap, str(d.wins), str(d.losses), p_value(d.p), p_value(adjusted)])
    return table(["set", "difference of accuracy", "gained", "lost", "p", "p, adjusted"], rows)


def evidence_table(results: Sequence[Measurement], judge: str) -> str:
    """The passages that show a right decisive verdict against the gold ones, where there are others to choose from."""
    rows = []
    for one in results:
        right = [
            (v.shown, c.row)
            for v, c in zip(one.verdicts[Method(judge, SHIPPED)], one.claims, strict=True)
            if v.shown and v.label == c.row.gold and c.row.right and len(c.row.passages or ()) > len(c.row.right)
        ]
        if not right or one.key.endswith(TWO_LABELS):
            continue
        means = np.mean([evidence_scores(shown, row.right_ids) for shown, row in right], axis=0)
        # FEVER (Thorne et al. 2018, section 5): 1 if one of the sufficient sets is shown completely
        complete = [any(set(one) <= set(shown) for one in row.sets) for shown, row in right if row.sets]
        all_of_a_set = f"{np.mean(complete):.3f}" if complete else ""
        rows.append([one.title, str(len(right)), *(f"{value:.3f}" for value in means), all_of_a_set])
    return table(["set", "claims", "precision", "recall", "F1", "a sufficient set"], rows)


def evidence_scores(shown: Collection[str], right: Collection[str]) -> tuple[float, float, float]:
    """Precision, recall and F1 of shown passages against at least one that is right."""
    both = len({*shown} & {*right})
    return both / len(shown) if shown else 0.0, both / len(right), 2 * both / (len(shown) + len(right))


@dataclass(frozen=True)
class Goal:
    """A figure that verification should reach."""

    title: str
    key: str
    metric: str
    bound: float


GOALS = (
    Goal("FEVER, deciding sentences, two labels: accuracy", "fever_two: two labels", "accuracy", 0.91),
    Goal("FEVER, deciding sentences among five: macro F1", "fever_oracle", "macro_f1", 0.72),
    Goal("VitaminC: accuracy", "vitaminc", "accuracy", 0.83),
    Goal("FEVER Symmetric, two labels: accuracy", "fever_symmetric: two labels", "accuracy", 0.82),
    Goal("Fool-Me-Twice, two labels: accuracy", "fm2: two labels", "accuracy", 0.72),
)
MAX_FALSE_SUPPORTED, MAX_ECE = 0.05, 0.06
MIN_PLAIN_RIGHT, MAX_PLAIN_FALSE = 48, 1


def goal_table(results: Sequence[Measurement], judges: Sequence[str]) -> str:
    """The goals, and what each judge reaches with the decision that ships."""
    by_key = {one.key: one for one in results}
    abstaining = [one for one in results if not one.key.endswith(TWO_LABELS)]
    rows = []
    for goal in GOALS:
        if goal.key in by_key:
            values = [by_key[goal.key].metrics[Method(j, SHIPPED)].values[goal.metric] for j in judges]
            rows.append([goal.title, f"at least {goal.bound:.2f}", *(_mark(v, v >= goal.bound) for v in values)])
    for title, metric, bound in (
        ("false supported, the largest of any set", "false_supported", MAX_FALSE_SUPPORTED),
        ("ECE, the largest of any set", "ece", MAX_ECE),
    ):
        for way, label in ((SHIPPED, ""), (HELD_OUT, ", fitted without the set's dataset")):
            cells = []
            for judge in judges:
                worst = max(abstaining, key=lambda one: one.metrics[Method(judge, way)].values.get(metric, 0.0))
                value = worst.metrics[Method(judge, way)].values[metric]
                cells.append(f"{_mark(value, value <= bound)} ({worst.key})")
            rows.append([f"{title}{label}", f"at most {bound:.2f}", *cells])
    plain = by_key.get("plain_claims")
    if plain is not None:
        right, false = [], []
        for judge in judges:
            m = plain.metrics[Method(judge, SHIPPED)]
            supported = [v.label == "supports" for v in plain.verdicts[Method(judge, SHIPPED)]]
            wrong = sum(s and c.row.gold != "supports" for s, c in zip(supported, plain.claims, strict=True))
            right.append(_mark(int(m.right.sum()), int(m.right.sum()) >= MIN_PLAIN_RIGHT))
            false.append(_mark(wrong, wrong <= MAX_PLAIN_FALSE))
        rows.append([f"plain claims: right of {len(plain.claims)}", f"at least {MIN_PLAIN_RIGHT}", *right])
        rows.append(["plain claims: falsely supported", f"at most {MAX_PLAIN_FALSE}", *false])
    return table(["goal", "bound", *judges], rows)


def conclusion(results: Sequence[Measurement], judge: str) -> str:
    """What the decision that ships reaches with a judge, and what not, in sentences."""
    by_key = {one.key: one for one in results}
    shipped = Method(judge, SHIPPED)
    reached: list[str] = []
    missed: list[str] = []
    for goal in GOALS:
        if goal.key in by_key:
            value = by_key[goal.key].metrics[shipped].values[goal.metric]
            (reached if value >= goal.bound else missed).append(f"{goal.title} {value:.3f} (goal {goal.bound:.2f})")
    abstaining = [one for one in results if not one.key.endswith(TWO_LABELS)]
    sentences = []
    for title, metric, bound in (
        ("A claim that is not supported is called supported in", "false_supported", MAX_FALSE_SUPPORTED),
        ("The calibration error is", "ece", MAX_ECE),
    ):
        values = {one.title: one.metrics[shipped].values.get(metric, 0.0) for one in abstaining}
        above = {title: value for title, value in values.items() if value > bound}
        worst = max(values, key=values.__getitem__)
        text = f"{title} at most {100 * bound:.0f} % on {len(values) - len(above)} of {len(values)} sets"
        sentences.append(f"{text} (most: {worst}, {100 * values[worst]:.1f} %).")
    by_chance = [one for one in abstaining if one.metrics[shipped].values.get("ece", 0.0) > MAX_ECE]
    exceeds = [m for one in by_chance if (m := one.metrics[shipped].values)["ece"] > m[ECE_BY_CHANCE]]
    sentences.append(
        f"On {len(by_chance) - len(exceeds)} of those above it, calibrated probabilities could have as much by chance."
    )
    alone = Method(judge, ALONE)
    below = [
        one.title for one in results if one.metrics[shipped].values["accuracy"] < one.metrics[alone].values["accuracy"]
    ]
    lines = [
        f"**With `{judge}`, what ships reaches {len(reached)} of {len(reached) + len(missed)} goals of accuracy.** "
        f"{' '.join(sentences)}",
        *([f"Reached: {'; '.join(reached)}."] if reached else []),
        *([f"Not reached: {'; '.join(missed)}."] if missed else []),
    ]
    if below:
        lines.append(f"Abstaining costs accuracy against the judge alone on: {'; '.join(below)}.")
    return "\n\n".join(lines)


def _mark(value: float, reached: bool) -> str:
    text = str(value) if isinstance(value, int) else f"{value:.3f}"
    return f"**{text}**" if reached else text


def cost_table(costs: Sequence[Cost]) -> str:
    """What a claim costs by each judge."""
    return table(["judge", "ms a claim", "pairs a claim"], [[c.judge, f"{c.ms:,.1f}", f"{c.pairs:.2f}"] for c in costs])


# -- curves

INK, COLOURS = "#7a7f87", ("#4269d0", "#d9822b", "#3a9d5d", "#b5487a")
WIDE, HIGH, GAP, LEFT, TOP, ACROSS = 170, 110, 48, 30, 46, 4
MAX_RISK = 0.6


def risk_svg(results: Sequence[Measurement], methods: Sequence[Method]) -> str:
    """Risk against coverage of every set: claims answered in the order of the confidence of their top label."""
    down = -(-len(results) // ACROSS)
    width, height = LEFT + ACROSS * (WIDE + GAP), TOP + down * (HIGH + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" '
        f'font-size="10" fill="{INK}">',
        "<title>Share of wrong ones among the claims answered first, against the share answered</title>",
    ]
    for i, (method, colour) in enumerate(zip(methods, COLOURS, strict=False)):
        x = LEFT + 190 * i
        parts.append(f'<path d="M{x} 10h18" {_line(colour)}/><text x="{x + 23}" y="13">{method.title}</text>')
    for i, one in enumerate(results):
        x, y = LEFT + (i % ACROSS) * (WIDE + GAP), TOP + (i // ACROSS) * (HIGH + GAP)
        parts.append(
            f'<g transform="translate({x} {y})"><text x="{WIDE / 2}" y="-6" text-anchor="middle">{one.key}</text>'
        )
        for risk in (0.0, 0.2, 0.4, 0.6):
            at = HIGH * (1 - risk / MAX_RISK)
            parts.append(f'<path d="M0 {at:.1f}h{WIDE}" stroke="{INK}" stroke-opacity=".25"/>')
            parts.append(f'<text x="-4" y="{at + 3:.1f}" text-anchor="end">{risk:g}</text>')
        for share in (0.0, 0.5, 1.0):
            parts.append(f'<text x="{share * WIDE:.0f}" y="{HIGH + 12}" text-anchor="middle">{share:g}</text>')
        for method, colour in zip(methods, COLOURS, strict=False):
            parts.append(f'<path d="{_curve(one, method)}" {_line(colour)}/>')
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def _line(colour: str) -> str:
    return f'fill="none" stroke="{colour}" stroke-width="1.5" stroke-linejoin="round"'


def _curve(one: Measurement, method: Method) -> str:
    plain = [
        (v.probs, c.row.gold) for v, c in zip(one.verdicts[method], one.claims, strict=True) if c.row.gold != "disputed"
    ]
    confidence, correct = top_label_hits([p for p, _ in plain], [g for _, g in plain])
    stated, right = np.minimum(np.array(confidence), 1.0), np.array(correct, dtype=np.float64)
    kept = [stated >= threshold for threshold in np.unique(stated)[::-1]]
    points = [(float(k.mean()), float(1 - right[k].mean())) for k in kept]  # coverage and risk
    shown = [*points[:: max(1, len(points) // 80)], points[-1]]
    return "M" + "L".join(f"{c * WIDE:.1f} {HIGH * (1 - min(risk, MAX_RISK) / MAX_RISK):.1f}" for c, risk in shown)


# -- pages


def replace_parts(page: Path, parts: dict[str, str]) -> None:
    """Put each part between its marks, `<!-- table: NAME -->` and `<!-- end -->`.

    Raises:
        SystemExit: A mark is missing.
    """
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"{page} has no part <!-- table: {name} -->")
        text = pattern.sub(lambda m, part=part: m[1] + part + m[2], text)  # type: ignore[misc]
    page.write_text(text, encoding="utf-8")


def log(message: str) -> None:
    """Report progress."""
    print(message, file=sys.stderr, flush=True)


async def work(args: argparse.Namespace) -> None:
    """Judge, and write the tables if they are requested."""
    settings = load_settings()
    data = parse_paths(args.data)
    trained = {name: path for name, path in data.items() if name != "plain_claims"} | parse_paths(args.trained)
    sets = await read_evaluation_sets(data, args.corpus, trained=trained, limit=args.claims, seed=args.seed)
    judges = [args.judge] if args.step == "judge" else [LEXICAL, *args.judges]
    judged = {}
    with VerdictStore(args.work / "verdicts.sqlite") as store:
        for name in judges:
            judged[name] = await judge_sets(sets, name, settings, store, args.limit)
    if args.step == "judge":
        return
    results = measure(sets, judged, args.seed)
    best, others = args.judges[-1], args.judges[:-1]
    timed = next((one for one in sets if one.key == "fever_retrieved"), sets[0])
    costs = [await time_judge(timed, name, settings) for name in judges]
    counts = ", ".join(f"{one.key} {len(one.rows[: args.limit]):,}" for one in sets)
    identities = ", ".join(f"{name} `{one.identity}`" for name, one in judged.items())
    made = f"reason {__version__}, Python {platform.python_version()}, numpy {np.__version__}; {processor()}. Judges: "
    parts = {
        "conclusion": conclusion(results, best),
        "summary": summary_table(results, best, others[0] if others else None),
        "goals": goal_table(results, args.judges),
        "differences": difference_table(results, best),
        "evidence": evidence_table(results, best),
        "cost": cost_table(costs),
    }
    files = ", ".join(f"{name} `{sha256_of(find_files(path, (name,)))[:16]}`" for name, path in data.items())
    details = {
        "made": f"{made}{identities}. Claims: {counts}. SHA-256 of the files: {files}.",
        "sets": "\n\n".join(f"### {one.title} (n = {len(one.claims):,})\n\n{set_table(one)}" for one in results),
    }
    if args.docs is None:
        print("\n\n".join(f"## {name}\n\n{part}" for name, part in {**parts, **details}.items()))
        return
    replace_parts(args.docs / "results" / "verification.md", parts)
    replace_parts(args.docs / "results" / "details" / "verification.md", details)
    shown = [Method(best, ALONE), Method(best, SHIPPED), *(Method(name, SHIPPED) for name in others)]
    svg = risk_svg([one for one in results if not one.key.endswith(TWO_LABELS)], shown)
    (args.docs / "results" / "verification.svg").write_text(svg, encoding="utf-8")


def main() -> None:
    """Do a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("judge", "table"))
    parser.add_argument("--data", action="append", required=True, metavar="NAME=PATH", help="a dataset to measure on")
    parser.add_argument(
        "--trained", action="append", default=[], metavar="NAME=PATH", help="training file of a dataset, if another"
    )
    parser.add_argument("--corpus", type=Path, required=True, help="sentences that FEVER's lists name")
    parser.add_argument("--judge", default="base", help="judge of the step judge; base=FILE for other weights")
    parser.add_argument("--judges", nargs="+", default=["small", "base"], help="judges of the tables, the best last")
    parser.add_argument("--work", type=Path, required=True, help="directory of the stored verdicts")
    parser.add_argument("--claims", type=int, default=MAX_CLAIMS, help="maximum claims of a set")
    parser.add_argument("--limit", type=int, help="maximum claims of a set in a trial: its first ones")
    parser.add_argument("--docs", type=Path, help="directory of the documentation to update; by default print")
    parser.add_argument("--seed", type=int, default=0, help="seed of samples and resamples")
    parser.add_argument("--threads", type=int, help="threads of torch")
    args = parser.parse_args()
    if args.threads is not None:
        import torch

        torch.set_num_threads(args.threads)
    asyncio.run(work(args))


if __name__ == "__main__":
    main()
