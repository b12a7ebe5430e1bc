"""`Method`: combines verdicts on passages into a verdict on the claim; fitted to some claims, applied to others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from ...core.errors import UserError
from ...core.types import Verdict
from ...reasoning.retrieval.protocol import Passage
from ...verify.calibration import GateMetrics, VerdictCalibration, choose_threshold, fit_calibration
from ...verify.davinci.config import DavinciConfig
from ...verify.davinci.decision import Decision, DecisionRule, aggregation_id
from ...verify.fusion import FusionParameters, Mode, evidence_item
from ...verify.fusion_fitting import FittedFusion, FusionExample, fit_fusion
from ...verify.metrics import GoldLabel
from ...verify.types import Label, Support
from .claims import FOLDS, fold_of
from .judging import EvidenceForm, JudgedClaim

Aggregation = Mode | Literal["concat", "top"]
"""How passages become one verdict; "top" looks at the best passage only."""
CalibrationKind = Literal["temperature", "platt", "isotonic"]

GOLDS: Final[dict[Verdict, GoldLabel]] = {
    "supported": "supports",
    "refuted": "refutes",
    "not_enough_evidence": "neutral",
    "disputed": "disputed",
}
FITTED_MODES: Final = ("witness", "product")


@dataclass(frozen=True)
class Method:
    """One way.

    Attributes:
        name: What it is called.
        form: What is judged.
        aggregation: How passages become one verdict.
        fitted: Whether the parameters of the aggregation are fitted; of "witness" and "product" only.
        calibration: How probabilities are calibrated; None leaves them.
        gate: Minimum confidence of a decisive verdict; None chooses it after calibration; 0 disables it.
        disputed: Whether "disputed" is a possible verdict.
        start: Parameters of the aggregation, or those that the fitting begins from; None are the defaults.
    """

    name: str
    form: EvidenceForm = "full"
    aggregation: Aggregation = "witness"
    fitted: bool = True
    calibration: CalibrationKind | None = "temperature"
    gate: float | None = None
    disputed: bool = False
    start: FusionParameters | None = field(default=None)

    @property
    def whole(self) -> bool:
        """Whether there is one verdict on a claim to begin with."""
        return self.aggregation in ("concat", "top") or self.form in ("concat", "claim")


class FittedMethod(NamedTuple):
    """A method fitted to claims.

    Attributes:
        rule: The decision rule.
        fusion: The fitted parameters; None if none were fitted.
        calibration: The calibration; None if there is none.
        standing: Metrics of the gate's threshold on the claims of its choice; None if it was not chosen.
    """

    rule: DecisionRule
    fusion: FittedFusion | None
    calibration: VerdictCalibration | None
    standing: GateMetrics | None


class ClaimVerdict(NamedTuple):
    """What a method states about a claim.

    Attributes:
        label: What it is by.
        probs: Its calibrated probabilities; the gate does not change them.
        downgraded: Whether the gate took a decisive label back.
        named: Ids of the passages that it shows for a decisive verdict.
    """

    label: GoldLabel
    probs: Support
    downgraded: bool = False
    named: tuple[str, ...] = ()


Memo = dict[tuple[int, EvidenceForm, str], FittedFusion]
"""Fitted parameters by fold, form and what they began from: they take the longest, and several methods share them. It
belongs to one list of claims and one judge."""


def fit_method(
    judged: Sequence[JudgedClaim],
    method: Method,
    *,
    backend: str,
    source: str,
    memo: Memo | None = None,
    part: int = -1,
) -> FittedMethod:
    """Fit fusion, then calibration, then gate; each only if the method has it.

    Raises:
        UserError: There are too few claims.
    """
    fusion, fitted = _fusion(judged, method, backend, source, {} if memo is None else memo, part)
    plain = [one for one in judged if one.row.gold != "disputed" and any(s is not None for s in one.supports)]
    bare = DecisionRule(fusion=fusion, threshold=0.0)
    supports = [decide(one, bare, method).probs for one in plain]
    golds: list[Label] = [one.row.gold for one in plain]  # type: ignore[misc]  # disputed ones were left out
    calibration = None
    if method.calibration is not None:
        kind: Mode | Literal["concat"] = "concat" if method.aggregation == "concat" else fusion.mode
        config = DavinciConfig(aggregation=kind, evidence_form="span" if method.form == "span" else "full")
        calibration = fit_calibration(
            method.calibration,
            supports,
            golds,
            backend=backend,
            aggregation=aggregation_id(config, fusion),
            groups=[one.row.group or one.row.name for one in plain],
        )
        supports = [calibration.apply(s) for s in supports]
    standing = choose_threshold(supports, golds) if method.gate is None else None
    threshold = standing.threshold if standing is not None else method.gate
    if calibration is not None:
        calibration = calibration.model_copy(update={"threshold": threshold})
    return FittedMethod(
        DecisionRule(fusion=fusion, calibration=calibration, threshold=threshold), fitted, calibration, standing
    )


def verdict_of(one: JudgedClaim, fit_: FittedMethod, method: Method) -> ClaimVerdict:
    """What a fitted method states about a claim."""
    decision = decide(one, fit_.rule, method)
    label = GOLDS[decision.verdict]
    return ClaimVerdict(label, decision.probs, decision.downgraded, named_by(one, label, method))


def cross_validated_verdicts(
    judged: Sequence[JudgedClaim],
    method: Method,
    *,
    backend: str,
    source: str,
    folds: int = FOLDS,
    memo: Memo | None = None,
) -> tuple[list[ClaimVerdict], dict[int, FittedMethod]]:
    """Cross-fitting: the predictions for each claim by fits to the other folds, in order; and the fits by fold.

    Folds are by a hash of the group, so that no claim helps to measure itself or what belongs to it.

    Raises:
        UserError: There are too few claims, or a fold is left without others.
    """
    parts = [fold_of(one.row.group or one.row.name, folds) for one in judged]
    fits = {}
    for part in sorted(set(parts)):
        others = [one for one, p in zip(judged, parts, strict=True) if p != part]
        if not others:
            raise UserError("all claims are of one fold, so none are left to fit to", hint="give more claims")
        fits[part] = fit_method(others, method, backend=backend, source=source, memo=memo, part=part)
    return verdicts_by_fold(judged, fits, method, folds), fits


def verdicts_by_fold(
    judged: Sequence[JudgedClaim], fits: Mapping[int, FittedMethod], method: Method, folds: int = FOLDS
) -> list[ClaimVerdict]:
    """The verdicts by the fit of each claim's fold; the evidence may differ from that of the fit."""
    return [verdict_of(one, fits[fold_of(one.row.group or one.row.name, folds)], method) for one in judged]


def decide(one: JudgedClaim, rule: DecisionRule, method: Method) -> Decision:
    """The decision on a claim by a fitted rule."""
    if method.whole:
        return rule.decide_concatenated(one.supports[0] if one.supports else None)
    return rule.decide(one.row.passages or (), one.supports)


def named_by(one: JudgedClaim, label: GoldLabel, method: Method) -> tuple[str, ...]:
    """Ids of the passages that `davinci` cites for a verdict: up to three that agree, the clearest first.

    If none agrees by itself it is the closest one; one for each side of a dispute; none for "neutral". A
    verdict on all passages as one text cites them all.
    """
    passages: Sequence[Passage] = one.row.passages or ()
    if label == "neutral" or method.form == "claim":
        return ()
    if method.form == "concat":
        return tuple(p.id for p in passages)
    looked = passages[:1] if method.aggregation == "top" else passages
    read = [(p.id, s) for p, s in zip(looked, one.supports, strict=False) if s is not None]
    if not read:
        return ()
    most = {side: max(read, key=lambda result: getattr(result[1], side))[0] for side in ("supports", "refutes")}
    if label == "disputed":
        return tuple(dict.fromkeys(most.values()))
    agreeing = sorted(
        ((-getattr(s, label), i, name) for i, (name, s) in enumerate(read) if s.label == label), key=lambda a: a[:2]
    )
    return tuple(name for _, _, name in agreeing[:3]) or (most[label],)


def examples_of(judged: Sequence[JudgedClaim]) -> list[FusionExample]:
    """Claims as fusion is fitted to them; passages that could not be read are left out."""
    return [
        FusionExample(
            tuple(
                evidence_item(p, (s,), rank=rank)
                for rank, (p, s) in enumerate(zip(one.row.passages or (), one.supports, strict=True), 1)
                if s is not None
            ),
            one.row.gold,
        )
        for one in judged
    ]


def _fusion(
    judged: Sequence[JudgedClaim], method: Method, backend: str, source: str, memo: Memo, part: int
) -> tuple[FusionParameters, FittedFusion | None]:
    if method.whole:
        return FusionParameters(mode="mean", disputed=False), None
    start = method.start or FusionParameters(mode=method.aggregation)
    start = start.model_copy(update={"disputed": method.disputed})
    if not method.fitted or start.mode not in FITTED_MODES:
        return start, None
    key = (part, method.form, start.model_dump_json())
    fitted = memo.get(key)
    if fitted is None:
        fitted = memo[key] = fit_fusion(examples_of(judged), verifier=backend, source=source, start=start)
    return fitted.parameters_for(verifier=backend, source=source), fitted
