"""Votes on recorded samples of Qwen3-8B: self-consistency, PPL, PC and RPC, beside the published figures.

    python benchmarks/recorded/votes.py --pools DIR --docs docs --reference DIR

All recorded samples of a question vote, so no order and no seed is involved. `--reference` is a checkout of the
authors' program (github.com/WNJXYK/RPC): its functions are run on the same samples and compared vote by vote.
"""

from __future__ import annotations

import ast
import io
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from data import Row, arguments, fingerprint, grouped, read

sys.path.append(str(Path(__file__).resolve().parents[1]))

from reason.evals.statistics.outcomes import Outcomes
from reason.evals.statistics.paired import compare_paired
from reason.reasoning.voting.path_votes import Method, Parity, Vote, vote
from reason.reasoning.voting.path_votes import Path as SampledPath
from reporting import compared, comparisons_table, table, write_results
from scipy.optimize import minimize
from scipy.special import gamma

NAME = "recorded_votes"
METHODS: tuple[Method, ...] = ("sc", "ppl", "pc", "rpc")
PUBLISHED = {
    "lfud_mcq": {"sc": (88.00, 12.12), "ppl": (87.00, 8.28), "rpc": (88.00, 12.09)},
    "kcc": {"sc": (43.44, 50.55), "ppl": (42.81, 46.08), "rpc": (43.75, 50.53)},
    "jurisnet": {"sc": (19.08, 52.42), "ppl": (18.67, 78.82), "rpc": (20.00, 46.02)},
}
"""Accuracy and ECE in per cent, of the pool's authors, over all questions of both sides."""
TITLES = {"lfud_mcq": "LFUD, fallacy choice", "kcc": "KCC, relevance grade", "jurisnet": "JurisNet, statute sets"}
BINS = 10
SAME = 1e-6
"""Confidences that differ by less are the same."""


@dataclass(frozen=True)
class QuestionVotes:
    """The samples of a question and what each method makes of them."""

    id: str
    group: str
    gold: str
    rows: tuple[Row, ...]

    @property
    def paths(self) -> list[SampledPath]:
        """The samples as a vote takes them; samples of one text share it."""
        return [SampledPath(str(r["completion_id"]), r["answer"], r["mean_logprob"]) for r in self.rows]

    @property
    def classes(self) -> list[list[int]]:
        """Positions of equal answers: they are in the source's canonical form."""
        found: dict[str, list[int]] = {}
        for i, row in enumerate(self.rows):
            if row["answer"] is not None:
                found.setdefault(row["answer"], []).append(i)
        return list(found.values())

    def vote(self, method: Method, parity: Parity = "none") -> Vote:
        """The vote of the product's core."""
        return vote(self.paths, self.classes, method, parity)


@dataclass(frozen=True)
class Scored:
    """A vote against the gold answer.

    Attributes:
        winners: The answers that share the first place.
        credit: Share of the first place that the gold answer has.
        confidence: Of the first place.
    """

    winners: frozenset[str | None]
    credit: float
    confidence: float


def scored(result: Vote, gold: str) -> Scored:
    """A vote's credit: ties are split."""
    first = [c for c in result.classes if c.credit > 0]
    return Scored(
        frozenset(c.answer for c in first), sum(c.credit for c in first if c.answer == gold), result.confidence
    )


def ece(votes: Sequence[Scored]) -> float:
    """Expected calibration error over ten equal bins (lower, upper]."""
    confidence = np.array([v.confidence for v in votes])
    credit = np.array([v.credit for v in votes])
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = [abs(float((credit - confidence)[bins == b].sum())) for b in range(BINS)]
    return sum(gaps) / len(votes)


def reference_functions(checkout: Path) -> dict[str, Callable[..., Any]]:
    """The authors' evaluators by method, without their command line and its packages."""
    names: dict[str, Any] = {"np": np, "minimize": minimize, "gamma": gamma, "INF": 1e9}
    for file in ("compute_sc.py", "compute_perp.py", "compute_rpc.py"):
        tree = ast.parse((checkout / file).read_text(encoding="utf-8"))
        wanted = [
            node
            for node in tree.body
            if (isinstance(node, ast.FunctionDef) and not node.decorator_list and "check_equal" not in node.name)
            or (isinstance(node, ast.ClassDef) and node.name == "DSU")
        ]
        exec(compile(ast.Module(wanted, []), str(checkout / file), "exec"), names)
    return {"sc": names["sc_evaluator"], "ppl": names["prep_evaluator"], "rpc": names["wpc_evaluator"]}


def reference_vote(evaluate: Callable[..., Any], question: QuestionVotes) -> Scored:
    """A vote of the authors' program, answers compared as texts."""
    rows = question.rows
    with redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        credit, answers = evaluate(
            [r["answer"] for r in rows],
            [str(r["completion_id"]) for r in rows],
            [r["mean_logprob"] for r in rows],
            question.gold,
            lambda a, b, *_: a == b,
            lambda a, b: a == b,
        )
    top = max((value for _, value, _ in answers if not math.isnan(value)), default=math.nan)
    return Scored(frozenset(a for a, value, _ in answers if value >= top), float(credit), float(top))


def questions_of(rows: Sequence[Row]) -> dict[str, list[QuestionVotes]]:
    """The questions by data set."""
    return {
        str(dataset): [
            QuestionVotes(str(q), str(own[0].get("split_group") or q), own[0]["gold"], tuple(own))
            for q, own in grouped(part, lambda r: r["question_id"]).items()
        ]
        for dataset, part in sorted(grouped(rows, lambda r: r["dataset"]).items())
    }


def parity_table(pools: dict[str, list[QuestionVotes]], checkout: Path) -> tuple[str, list[str], int, int]:
    """Votes of the product under the reference's options against the authors' program; and each that differs."""
    functions = reference_functions(checkout)
    lines, notes, same_total, total = [], [], 0, 0
    for dataset, questions in pools.items():
        for method in ("sc", "ppl", "rpc"):
            same = close = 0
            for question in questions:
                ours = scored(question.vote(method, "reference"), question.gold)
                theirs = reference_vote(functions[method], question)
                equal = math.isclose(ours.credit, theirs.credit, abs_tol=SAME) and ours.winners == theirs.winners
                near = math.isclose(ours.confidence, theirs.confidence, abs_tol=1e-3)
                same, close = same + equal, close + near
                if not (equal and near):
                    notes.append(
                        f"{question.id}, {method}: {'the same winner' if equal else 'other winners'}, confidence "
                        f"{ours.confidence:.3f} here and {theirs.confidence:.3f} there."
                    )
            lines.append((TITLES[dataset], method, f"{same} of {len(questions)}", f"{close} of {len(questions)}"))
            same_total, total = same_total + same, total + len(questions)
    head = ("data", "method", "same winners and credit", "same confidence to 0.001")
    return table(head, lines), notes, same_total, total


def main() -> int:
    """Write the page and the comparisons."""
    parser = arguments(__doc__)
    parser.add_argument("--reference", type=Path, help="checkout of the authors' program")
    args = parser.parse_args()
    pools = questions_of(read(args.pools, args.side, "rpc_qwen3"))
    rows, results, differing = [], [], []
    for dataset, questions in pools.items():
        outcomes = {}
        clusters = {q.id: q.group for q in questions}
        for method in METHODS:
            votes = [scored(q.vote(method), q.gold) for q in questions]
            reference = [scored(q.vote(method, "reference"), q.gold) for q in questions]
            differing += [1 for a, b in zip(votes, reference, strict=True) if a.winners != b.winners]
            outcomes[method] = Outcomes.of(
                {q.id: {0: v.credit} for q, v in zip(questions, votes, strict=True)}, clusters
            )
            accuracy = np.mean([v.credit for v in votes])
            published = PUBLISHED[dataset].get(method)
            rows.append(
                (
                    f"{TITLES[dataset]} ({len(questions)} questions, {len(questions[0].rows)} samples)",
                    method,
                    f"{100 * accuracy:.2f}",
                    f"{100 * ece(votes):.2f}",
                    "" if published is None else f"{published[0]:.2f}",
                    "" if published is None else f"{published[1]:.2f}",
                )
            )
        for method in ("ppl", "pc", "rpc"):
            name = f"{NAME.replace('_', '-')}/{dataset}-{method}-vs-sc"
            results.append(
                (name, f"{method}, {dataset}", f"sc, {dataset}", compare_paired(outcomes[method], outcomes["sc"]))
            )
    comparisons = compared(results)
    shown = [c for c in comparisons if c.status != "not shown"]
    verdict = (
        "No weighted vote is shown to differ from self-consistency."
        if not shown
        else "Shown to differ from self-consistency: " + "; ".join(f"{c.a} ({100 * c.difference:+.1f})" for c in shown)
    )
    text = [
        "# Votes on recorded samples",
        "",
        f"{verdict} On these pools of 8 and 16 samples the votes of RPC, PC and PPL end within "
        f"{100 * max(abs(c.difference) for c in comparisons):.1f} points of self-consistency, as the paper's remark "
        "on small pools and closed answers expects. All confidences are far too high on KCC and JurisNet, where the "
        "samples agree on wrong answers.",
        "",
        table(("data", "vote", "accuracy %", "ECE %", "published accuracy %", "published ECE %"), rows),
        "",
        f"Accuracy and ECE are of the {args.side} half; the published figures are of both halves "
        "(rabqatab/llm-reasoning-reliability-reproduction), so they are near and not equal. Ties are split. The "
        f"recommended options and the reference's choose other winners in {len(differing)} of "
        f"{sum(map(len, pools.values())) * len(METHODS)} votes.",
        "",
        "## Differences",
        "",
        comparisons_table(comparisons),
        "",
        f"P-values are adjusted for the nine comparisons (Holm). KCC has {len(pools['kcc'])} questions on "
        f"{len({q.group for q in pools['kcc']})} queries, so its intervals and tests go by query.",
        "",
    ]
    if args.reference is not None:
        parity, notes, same, total = parity_table(pools, args.reference)
        text += [
            "## Against the authors' program",
            "",
            f"With `parity=reference` the core gives the authors' vote in {same} of {total} cases.",
            "",
            parity,
            "",
            *[f"- {note}" for note in notes],
            "",
            "Where a confidence differs, the fits do: probabilities that differ in the last bit (`math.exp` here, "
            "`numpy.exp` there) lead the program's solver, which takes finite differences, to another point of a "
            "flat likelihood. Such a point can also change which answer wins where two are close.",
            "",
        ]
    text += [
        "## How it was measured",
        "",
        "<!-- not run: it measures for hours -->",
        "```bash",
        "git clone https://github.com/WNJXYK/RPC",
        f"python benchmarks/recorded/votes.py --pools POOLS --side {args.side} --docs docs --reference RPC",
        "```",
        "",
        f"Pool: {fingerprint(args.pools, args.side, 'rpc_qwen3')} (Qwen3-8B, thinking off, temperature 0.8, top-p "
        "0.95). All samples vote; nothing is random.",
        "",
        "## Limits",
        "",
        "The recorded log-probabilities are those after temperature, top-p and top-k, not the model's own, and they "
        "cover the justification that follows the answer. Pools of 8 and 16 samples are below the size for which RPC "
        "is meant (64 to 128).",
        "",
    ]
    page = "\n".join(text)
    write_results(args.docs, NAME, page, comparisons)
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
