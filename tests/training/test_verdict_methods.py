"""What is said of judged claims: by the decision, by the judge alone, by the majority, and without a dataset."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from labelled_claims import LabelledClaim, ranked
from reason.core.errors import UserError
from reason.verify.davinci.decision import DavinciConfig, DecisionRule, decision_rule_for
from reason.verify.types import Support, support
from support.labelled_claims import passage, row
from support.scripted_entailment import ScriptedEntailment
from verdict_fit import fit_verdict_model
from verdicts import (
    GOLDS,
    ClaimVerdict,
    JudgedClaim,
    check_claims,
    decide_claim,
    examples_of,
    fitted_without,
    judge_alone,
    without_abstaining,
)


def noisy(count: int, source: str, seed: int = 0) -> list[JudgedClaim]:
    """Claims of three labels that a judge is right about three times of four."""
    rng = random.Random(f"{source}{seed}")
    made = []
    for i in range(count):
        gold = ("supports", "refutes", "neutral")[i % 3]
        shown = ranked(
            [passage(f"{source}{i}-{j}", f"Town {i} has a mill and {j} wells.", f"Town {i}") for j in range(2)]
        )
        claim = LabelledClaim(source, f"{source}{i}", f"Town {i} has {i % 2} wells.", gold, shown, group=f"{source}{i}")
        told = gold if rng.random() < 0.75 else "neutral"
        supports = [
            support(0.7 + rng.random() if own == told else 0.2 * rng.random() + 0.05 for own in GOLD_ORDER)
            for _ in range(2)
        ]
        made.append(JudgedClaim(claim, tuple(supports)))
    return made


GOLD_ORDER = ("supports", "refutes", "neutral")
THREE = [claim for source in ("fever", "vitaminc", "wice") for claim in noisy(60, source)]


async def test_the_decision_is_davincis():
    rule = DecisionRule(model=fit_verdict_model(examples_of(THREE), judge="scripted@1").model)
    fresh = noisy(30, "fever", seed=1)
    verdicts = {(p.text, j.row.claim): s for j in fresh for p, s in zip(j.row.passages, j.supports, strict=True)}

    class Shown:
        name = identity = "shown"

        async def retrieve(self, claims, k):
            by_claim = {j.row.claim: list(j.row.passages) for j in fresh}
            return [by_claim[c] for c in claims]

    judge = ScriptedEntailment(lambda pair: verdicts.get((pair.evidence, pair.claim)))
    context = SimpleNamespace(entailment=judge, run=None)
    config = DavinciConfig(judge="scripted")
    reports = await check_claims([j.row.claim for j in fresh], Shown(), context, config)
    shipped = decision_rule_for(config, judge.identity)
    for one, report in zip(fresh, reports, strict=True):
        decided = decide_claim(one, shipped)
        assert decided._replace(shown=()) == ClaimVerdict(GOLDS[report.verdict], Support(*report.probs))
        assert bool(decided.shown) == (report.verdict != "not_enough_evidence")
    assert {decide_claim(one, rule).label for one in fresh} >= {"neutral"}


def test_a_fit_without_a_dataset_does_not_depend_on_it():
    examples = examples_of(THREE)
    other = [*examples_of(noisy(60, "fever", seed=7)), *(e for e in examples if e.dataset != "fever")]
    rule = DecisionRule()
    first, second = (fitted_without(some, "fever", rule, judge="j") for some in (examples, other))
    assert [first(one) for one in THREE] == [second(one) for one in THREE]
    third = fitted_without(examples, "wice", rule, judge="j")
    assert [first(one).probs for one in THREE] != [third(one).probs for one in THREE]
    with pytest.raises(UserError):
        fitted_without([e for e in examples if e.dataset == "fever"], "fever", rule, judge="j")


def test_the_judge_alone_goes_by_its_surest_passage():
    one = row("a", "supports", ["hm", "yes", "no"])
    sure = JudgedClaim(one, (Support(0.1, 0.0, 0.9), Support(0.3, 0.6, 0.1), Support(0.7, 0.2, 0.1)))
    assert judge_alone(sure) == ClaimVerdict("supports", Support(0.7, 0.2, 0.1))
    assert judge_alone(JudgedClaim(one, (None, None, Support(0.2, 0.1, 0.7)))).label == "neutral"
    assert judge_alone(JudgedClaim(one, (None, None, None))).probs.neutral == 1


def test_what_ignores_the_evidence_is_right_on_half_of_contrasting_pairs():
    """Specification, invariant 11: every claim of FEVER Symmetric has both labels."""
    rng = random.Random(0)
    by_claim = {f"claim {i}": Support(x := rng.random(), 1 - x, 0.0) for i in range(50)}
    rows = [row(f"{c}{gold}", gold, ["x"], claim=c) for c in by_claim for gold in ("supports", "refutes")]
    verdicts = [without_abstaining(ClaimVerdict("neutral", by_claim[r.claim])) for r in rows]
    assert sum(v.label == r.gold for v, r in zip(verdicts, rows, strict=True)) == len(rows) / 2
