"""Methods decide as `davinci` does, are fitted to other folds alone, and name the evidence that `davinci` shows."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
from reason.core.errors import UserError
from reason.evals.verification.calibration import calibrate_verdicts, save_verdict_calibration
from reason.evals.verification.claims import fold_of, ranked
from reason.evals.verification.judging import JudgedClaim
from reason.evals.verification.methods import (
    GOLDS,
    Method,
    cross_validated_verdicts,
    decide,
    fit_method,
    named_by,
    verdict_of,
    verdicts_by_fold,
)
from reason.verify.davinci.config import DavinciConfig
from reason.verify.davinci.davinci import check_claims
from reason.verify.davinci.decision import RETRIEVED, DecisionRule, decision_rule_for
from reason.verify.fusion import FusionParameters
from reason.verify.types import support
from support.labelled_claims import judged, passage, row
from support.scripted_entailment import ScriptedEntailment

BACKEND = "scripted@1"
LABELS = ("supports", "refutes", "neutral")


@pytest.fixture(autouse=True)
def short_grids(monkeypatch):
    """A fit in a tenth of the time."""
    monkeypatch.setattr("reason.verify.fusion_fitting.A_GRID", (0.4, 1.0))
    monkeypatch.setattr("reason.verify.fusion_fitting.BETA_GRID", (0.3, 1.0))


def noisy(n: int, seed: int = 0, *, disputed: int = 0, sharp: float = 1.0) -> list[JudgedClaim]:
    """Claims of whose five passages one says what the label is, mostly; a sharp judge is surer than it is right."""
    rng = random.Random(seed)
    made = []
    for i in range(n + disputed):
        gold = LABELS[i % 3] if i < n else "disputed"
        sides = {"supports": ["supports"], "refutes": ["refutes"], "disputed": ["supports", "refutes"]}.get(gold, [])
        one = row(f"{seed}-{i}", gold, [f"text {i} {j} hm" for j in range(5)])
        said = []
        for j in range(5):
            label = sides[j] if j < len(sides) else "neutral"
            if rng.random() < 0.25:
                label = rng.choice(LABELS)
            weights = {x: 0.2 + rng.random() * 0.3 for x in LABELS} | {label: 1.5 + rng.random()}
            said.append(support(weights[x] ** sharp for x in LABELS))
        made.append(JudgedClaim(one, tuple(said)))
    return made


SOME = noisy(90)


async def reports_of(rows: list[JudgedClaim], config: DavinciConfig):
    """What `davinci` itself says of the rows."""
    verdicts = {(p.text, j.row.claim): s for j in rows for p, s in zip(j.row.passages, j.supports, strict=True)}
    listed = {j.row.claim: list(j.row.passages) for j in rows}

    class Shown:
        name = identity = "shown"

        async def retrieve(self, claims, k):
            return [listed[c] for c in claims]

    judge = ScriptedEntailment(lambda pair: verdicts[pair.evidence, pair.claim])
    return await check_claims([j.row.claim for j in rows], Shown(), SimpleNamespace(entailment=judge), config)


async def test_fitted_files_reproduce_the_measured_verdicts(tmp_path):
    result = calibrate_verdicts(SOME, backend=BACKEND)
    fusion, calibration = save_verdict_calibration(result, tmp_path, "mine")
    assert (fusion.name, calibration.name) == ("fusion-mine.json", "calibration-mine.json")
    config = DavinciConfig(fusion=str(fusion), calibration=str(calibration))
    method = Method("x", disputed=True)
    whole = fit_method(SOME, method, backend=BACKEND, source=RETRIEVED)
    fresh = noisy(60, seed=1, disputed=10)
    reports = await reports_of(fresh, config)
    for one, report in zip(fresh, reports, strict=True):
        mine = verdict_of(one, whole, method)
        assert (GOLDS[report.verdict], report.probs, report.downgraded) == (mine.label, mine.probs, mine.downgraded)
        assert {p.passage for p in report.pairs if p.span is not None} == set(mine.named)
        assert report.threshold == result.calibration.threshold
    assert {r.verdict for r in reports} == {"supported", "refuted", "disputed", "not_enough_evidence"}
    assert reports[0].calibrator == whole.calibration.digest == result.calibration.digest


@pytest.mark.parametrize("aggregation", ["mean", "vote", "max", "product", "concat"])
@pytest.mark.parametrize("form", ["full", "span"])
def test_files_of_every_aggregation_are_taken(tmp_path, aggregation, form):
    rows = [JudgedClaim(j.row, j.supports[:1]) for j in SOME] if aggregation == "concat" else SOME
    result = calibrate_verdicts(rows, backend=BACKEND, aggregation=aggregation, form=form)
    files = save_verdict_calibration(result, tmp_path, "x")
    named = {"fusion": str(files[0])} if len(files) == 2 else {}
    assert len(files) == (2 if aggregation == "product" else 1)
    form = "full" if aggregation == "concat" else form
    config = DavinciConfig(aggregation=aggregation, evidence_form=form, calibration=str(files[-1]), **named)
    rule = decision_rule_for(config, BACKEND)
    assert rule.calibration.digest == result.calibration.digest
    assert rule.min_confidence == result.calibration.threshold
    assert rule.fusion.mode == ("mean" if aggregation == "concat" else aggregation)


def test_a_gate_of_0_without_fit_and_calibration_is_the_plain_verifier():
    plain = Method("p", aggregation="mean", fitted=False, calibration=None, gate=0.0)
    reported, _ = cross_validated_verdicts(SOME, plain, backend=BACKEND, source="x")
    for one, mine in zip(SOME, reported, strict=True):
        bare = decide(one, DecisionRule(fusion=FusionParameters(mode="mean"), threshold=0.0), plain)
        assert (mine.label, mine.probs, mine.downgraded) == (GOLDS[bare.verdict], bare.probs, False)
    shut, _ = cross_validated_verdicts(SOME, replace(plain, gate=1.01), backend=BACKEND, source="x")
    assert {t.label for t in shut} == {"neutral"}
    assert [t.probs for t in shut] == [t.probs for t in reported]


def test_a_higher_gate_never_answers_more():
    answered, memo = [], {}
    for gate in (0.0, 0.4, 0.6, 0.8, 0.95):
        reported, _ = cross_validated_verdicts(SOME, Method("g", gate=gate), backend=BACKEND, source="x", memo=memo)
        answered.append({i for i, t in enumerate(reported) if t.label != "neutral"})
    assert all(later <= earlier for earlier, later in pairwise(answered))
    assert len(answered[0]) > len(answered[-1])


def test_a_claim_is_measured_by_fits_to_other_claims():
    memo = {}
    reported, fits = cross_validated_verdicts(SOME, Method("m"), backend=BACKEND, source="x", memo=memo)
    assert set(fits) == set(range(5))
    assert len(memo) == 5
    part = fold_of(SOME[0].row.group)
    mine = [i for i, j in enumerate(SOME) if fold_of(j.row.group) == part]
    turned = list(SOME)
    for i in mine:  # their labels turned round change nothing of what is said of them
        gold = {"supports": "refutes", "refutes": "neutral", "neutral": "supports"}[SOME[i].row.gold]
        turned[i] = JudgedClaim(replace(SOME[i].row, gold=gold), SOME[i].supports)
    again, _ = cross_validated_verdicts(turned, Method("m"), backend=BACKEND, source="x")
    assert [again[i] for i in mine] == [reported[i] for i in mine]
    assert again != reported


def test_fits_are_shared_and_change_nothing():
    memo = {}
    a, _ = cross_validated_verdicts(SOME, Method("a"), backend=BACKEND, source="x", memo=memo)
    before = dict(memo)
    b, fits = cross_validated_verdicts(
        SOME, Method("b", calibration=None, gate=0.0), backend=BACKEND, source="x", memo=memo
    )
    assert memo == before
    alone, _ = cross_validated_verdicts(SOME, Method("b", calibration=None, gate=0.0), backend=BACKEND, source="x")
    assert b == alone
    assert verdicts_by_fold(SOME, fits, Method("b", calibration=None, gate=0.0)) == b
    assert a != b


def test_the_fit_corrects_an_overconfident_judge():
    result = calibrate_verdicts(noisy(210, seed=3, sharp=4), backend=BACKEND)
    assert result.after.values["nll"] < 0.9 * result.before.values["nll"]
    assert result.after.values["ece"] < 0.8 * result.before.values["ece"]
    assert sum(b.count for b in result.bins_after) == 210


def test_disputed_claims_inform_about_conflict_only():
    result = calibrate_verdicts(noisy(90, disputed=20), backend=BACKEND)
    assert (result.disputed, result.fusion.disputed, result.calibration.examples) == (20, 20, 90)
    assert (result.after.n, result.after.stated) == (110, 90)


def test_too_few_claims_are_refused():
    with pytest.raises(UserError):
        calibrate_verdicts(SOME[:10], backend=BACKEND)
    with pytest.raises(UserError, match="of one fold"):
        cross_validated_verdicts(
            [SOME[0]] * 30, Method("x", fitted=False, calibration=None, gate=0.0), backend="b", source="x"
        )


def test_top_aggregation_uses_the_first_passage():
    one = judged(row("1", "supports", ["yes", "no", "no"]))
    top = Method("t", aggregation="top", calibration=None, gate=0.0)
    (reported,), _ = (
        cross_validated_verdicts([one, judged(row("2", "neutral", ["hm"]))] * 1, top, backend="b", source="x")[0][:1],
        None,
    )
    assert (reported.label, reported.named) == ("supports", ("1-0",))


def test_cited_passages():
    one = judged(row("1", "supports", ["hm", "yes", "no", "yes", "yes", "yes"]))
    full = Method("f")
    assert named_by(one, "supports", full) == ("1-1", "1-3", "1-4")
    assert named_by(one, "refutes", full) == ("1-2",)
    assert named_by(one, "disputed", full) == ("1-1", "1-2")
    assert named_by(one, "neutral", full) == ()
    assert named_by(one, "supports", Method("c", form="claim")) == ()
    assert len(named_by(one, "supports", Method("c", form="concat", aggregation="concat"))) == 6
    silent = judged(row("2", "supports", ["hm", "hm"]))
    assert named_by(silent, "supports", full) == ("2-0",)
    unread = JudgedClaim(replace(one.row, passages=ranked([passage("u", "?")])), (None,))
    assert named_by(unread, "supports", full) == ()
