"""From the judge's probabilities of each passage to the verdict on a claim. Pure.

A `VerdictModel` gives the calibrated probabilities; a decisive verdict needs its threshold and a passage that shows it.
Everything else is "not enough evidence". The model is a multinomial logistic regression over `features`, fitted by
training/judge/verdict_fit.py.

Source: Rawte et al. 2026, "Trust but Verify: Introducing DAVinCI", arXiv:2604.21193; relevance, features and thresholds
are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from ...core.errors import DataError, UserError
from ...core.files import FittedFile, read_fitted_file
from ...core.messages import Frozen
from ...core.types import Probability, Verdict
from ...core.version import __version__
from ...reasoning.knowledge import Passage
from ...reasoning.strategy import Parameters
from ..fusion import Mode, evidence_item, fuse_evidence
from ..types import NOTHING, AttributionKind, Label, Support
from .features import (
    FEATURE_NAMES,
    bears_on,
    claim_features,
    compare,
    judged_passage,
    missing_words,
    replaced_term,
    with_verbatim,
)

VERDICTS: Final[dict[Label, Verdict]] = {
    "supports": "supported",
    "refutes": "refuted",
    "neutral": "not_enough_evidence",
}
NO_MODEL: Final = "none"
"""Value of `DavinciConfig.verdicts` for fused probabilities instead of a model."""
MIN_LEAN: Final = 0.5
"""Probability from which an undecided claim leans to a label: the largest of three small ones says nothing."""
UNFITTED_THRESHOLD: Final = 0.8
"""Threshold of both decisive verdicts of judges without a model of their own, among them language models; chosen, not
fitted."""


class DavinciConfig(Parameters):
    """Parameters of `davinci`."""

    judge: Annotated[
        str,
        Field(
            min_length=1,
            description="judge of evidence: auto (the run's judge model if one is named, else base if it is on this "
            "machine, else small), model, base, small, lexical or nli/…",
        ),
    ] = "auto"
    claims: Annotated[
        Literal["rules", "model"], Field(description="claim splitting: by rules or by the judge model")
    ] = "rules"
    max_claims: Annotated[int, Field(ge=1, le=1000, description="maximum claims of an answer")] = 20
    k: Annotated[int, Field(ge=1, le=20, description="passages retrieved for each claim")] = 5
    aggregation: Annotated[
        Mode, Field(description="aggregation of several passages where no verdict model is used; only witness has one")
    ] = "witness"
    verdicts: Annotated[
        str,
        Field(
            description="file of a fitted verdict model; empty for the one shipped for the judge, none for the "
            "unfitted one"
        ),
    ] = ""
    threshold: Annotated[
        float | None,
        Field(ge=0, le=1, description="minimum probability of a decisive verdict; null for the verdict model's own"),
    ] = None
    internal: Annotated[
        tuple[AttributionKind, ...], Field(max_length=4, description="levels of attribution within the run")
    ] = (
        "provenance",
        "agreement",
    )


# -- the verdict model


class HeldOutScores(Frozen):
    """How a model does on a dataset that it was not fitted on, with the thresholds that ship.

    Attributes:
        part: The dataset, or the set of it.
        claims: Its claims.
        accuracy: Share of right verdicts of three; a disputed claim is right as not enough evidence.
        macro_f1: Mean F1 of the labels that occur.
        ece: Expected calibration error of the top label's probability, ten bins.
        false_supported: Share of supported ones among the claims whose gold label is another.
        false_refuted: Share of refuted ones among the claims whose gold label is another.
        wrong_supported: Share of wrong ones among the supported; None if none is.
        decided: Share of supported and refuted ones.
    """

    part: str
    claims: int
    accuracy: Probability
    macro_f1: Probability
    ece: Probability
    false_supported: Probability
    false_refuted: Probability
    wrong_supported: Probability | None
    decided: Probability


class VerdictModel(FittedFile):
    """Weights of the features, and thresholds, for one judge.

    Attributes:
        kind: What the file is.
        format: Version of the file format.
        name: The file's stem; empty before it is saved.
        judge: Identity of what judged the pairs.
        supports: Weight of each feature for the log-odds of "supports" to "neutral".
        refutes: The same of "refutes".
        intercepts: Their constants.
        supported: Minimum probability of "supported".
        refuted: Minimum probability of "refuted".
        data: Hash of the examples; empty if there were none.
        scores: How it does on each dataset, fitted without it.
        version: Version of `reason`.
    """

    kind: Literal["reason verdict model"] = "reason verdict model"
    format: Literal[1] = 1
    name: str = ""
    judge: str
    supports: dict[str, FiniteFloat]
    refutes: dict[str, FiniteFloat]
    intercepts: tuple[FiniteFloat, FiniteFloat]
    supported: Annotated[FiniteFloat, Field(gt=0)]
    refuted: Annotated[FiniteFloat, Field(gt=0)]
    data: str = ""
    scores: tuple[HeldOutScores, ...] = ()
    version: str = __version__

    @model_validator(mode="after")
    def _has_all_features(self) -> Self:
        for side in (self.supports, self.refutes):
            if tuple(side) != FEATURE_NAMES:
                wrong = sorted({*side} ^ {*FEATURE_NAMES}) or ["their order"]
                raise ValueError(f"the features differ from those of this version: {', '.join(wrong)}")
        return self

    def __str__(self) -> str:
        return f"{self.name} ({sum(s.claims for s in self.scores)} claims)".lstrip()

    def probabilities(self, features: Sequence[float]) -> Support:
        """The calibrated probabilities of a claim by its features (`FEATURE_NAMES`)."""
        logits = (
            self.intercepts[0] + math.fsum(w * x for w, x in zip(self.supports.values(), features, strict=True)),
            self.intercepts[1] + math.fsum(w * x for w, x in zip(self.refutes.values(), features, strict=True)),
            0.0,
        )
        top = max(logits)
        powers = [math.exp(logit - top) for logit in logits]
        total = math.fsum(powers)
        return Support(*(power / total for power in powers))


def load_verdict_model(path: Path) -> VerdictModel:
    """Read a model.

    Raises:
        DataError: The file does not exist, cannot be read, or is not a valid verdict model of this version.
    """
    hint = "fit one with training/judge/calibrate_verdicts.py"
    return read_fitted_file(path, VerdictModel, kind="reason verdict model", format=1, label="verdict model", hint=hint)


def decided_label(probs: Support, supported: float, refuted: float) -> Literal["supports", "refutes", "neutral"]:
    """The top label, if it is decisive with at least its threshold; else neutral."""
    threshold = {"supports": supported, "refutes": refuted, "neutral": 0.0}[probs.label]
    return probs.label if probs.confidence >= threshold else "neutral"


# -- the decision

Reason = Literal["ok", "weak", "silent", "conflict", "no_evidence"]


@dataclass(frozen=True)
class ClaimDecision:
    """The decision on a claim, without spans.

    Attributes:
        verdict: "supported", "refuted", "disputed" or "not_enough_evidence".
        label: The label with the highest probability.
        probs: Calibrated probabilities.
        reason: "ok" of a decisive verdict; "weak": a threshold was missed; "silent": the evidence decides nothing;
            "conflict": disputed; "no_evidence".
        note: Why it is not more certain, or what differs, in one phrase; empty if there is nothing to say.
        lean: The decisive label that missed its threshold, if it is more probable than not; None otherwise.
        threshold: The threshold of the label; 0 of "neutral".
        conflict: How far the passages contradict one another, in [0, 1].
        shown: Positions of the passages that show the verdict, the clearest first; of an undecided claim the closest
            one that bears on it.
        is_joint: Whether no single passage has the verdict by itself.
        features: What the model read; empty without evidence.
        is_fitted: Whether a verdict model decided, or there was no evidence.
    """

    verdict: Verdict
    label: Label
    probs: Support
    reason: Reason
    note: str
    lean: Label | None = None
    threshold: float = 0.0
    conflict: float = 0.0
    shown: tuple[int, ...] = ()
    is_joint: bool = False
    features: tuple[float, ...] = ()
    is_fitted: bool = True


@dataclass(frozen=True)
class DecisionRule:
    """How the verdicts of passages become one.

    Attributes:
        model: The verdict model; None takes the fused probabilities as they are.
        mode: How passages are fused: for the probabilities without a model, and for the conflict of passages.
        threshold: Minimum probability of both decisive verdicts; None is the model's, or else `UNFITTED_THRESHOLD`.
    """

    model: VerdictModel | None = None
    mode: Mode = "witness"
    threshold: float | None = None

    def thresholds(self) -> tuple[float, float]:
        """The thresholds of "supported" and "refuted"."""
        if self.threshold is not None:
            return self.threshold, self.threshold
        if self.model is None:
            return UNFITTED_THRESHOLD, UNFITTED_THRESHOLD
        return self.model.supported, self.model.refuted

    def decide(self, claim: str, passages: Sequence[Passage], supports: Sequence[Support | None]) -> ClaimDecision:
        """The decision on a claim.

        Args:
            claim: The claim.
            passages: Its passages, best first.
            supports: The judge's probabilities of each; one without a parsed verdict is left out.
        """
        parsed = [(i, s) for i, s in enumerate(with_verbatim(claim, passages, supports)) if s is not None]
        if not parsed:
            return ClaimDecision("not_enough_evidence", "neutral", NOTHING, "no_evidence", "no evidence was found")
        features = claim_features(claim, passages, supports)
        fused = fuse_evidence([evidence_item(judged_passage(passages[i]), s) for i, s in parsed], self.mode)
        probs = fused.probs if self.model is None else self.model.probabilities(features)
        label = probs.label
        threshold = dict(zip(("supports", "refutes", "neutral"), (*self.thresholds(), 0.0), strict=True))[label]
        decided = decided_label(probs, *self.thresholds())
        sides = self._disputing(claim, passages, parsed)
        shown: tuple[int, ...] = ()
        is_joint = False
        verdict: Verdict = "not_enough_evidence"
        if sides is not None:
            verdict, shown = "disputed", sides
        elif decided != "neutral":
            shown, is_joint = _showing(claim, passages, parsed, decided)
            verdict = VERDICTS[decided] if shown else verdict
        is_held_back = verdict == "not_enough_evidence" and label != "neutral" and decided == "neutral"
        lean = label if is_held_back and probs.confidence >= MIN_LEAN else None
        if not shown:
            shown = _closest(claim, passages, parsed, lean)
        reason: Reason = "silent"
        if verdict == "disputed":
            reason = "conflict"
        elif verdict != "not_enough_evidence":
            reason = "ok"
        elif lean is not None:
            reason = "weak"
        return ClaimDecision(
            verdict=verdict,
            label=label,
            probs=probs,
            lean=lean,
            threshold=threshold,
            conflict=fused.conflict,
            reason=reason,
            note=_note(claim, [passages[i] for i, _ in parsed], verdict, lean),
            shown=shown,
            is_joint=is_joint,
            features=features,
            is_fitted=self.model is not None,
        )

    def _disputing(
        self, claim: str, passages: Sequence[Passage], parsed: Sequence[tuple[int, Support]]
    ) -> tuple[int, int] | None:
        """Two passages of which one by itself passes the gate as supporting and one as refuting; the clearest ones."""
        if {"supports", "refutes"} - {s.label for _, s in parsed}:
            return None
        best: dict[Label, tuple[float, int]] = {}
        for i, one in parsed:
            if not bears_on(claim, passages[i]):
                continue
            by_itself = self._probabilities(claim, passages[i], one)
            label = decided_label(by_itself, *self.thresholds())
            best[label] = max(best.get(label, (-1.0, 0)), (by_itself.confidence, -i))
        if "supports" not in best or "refutes" not in best:
            return None
        return -best["supports"][1], -best["refutes"][1]

    def _probabilities(self, claim: str, passage: Passage, support: Support) -> Support:
        """Those of a claim with one passage."""
        if self.model is not None:
            return self.model.probabilities(claim_features(claim, [passage], [support]))
        return fuse_evidence([evidence_item(judged_passage(passage), support)], self.mode).probs


def _showing(
    claim: str, passages: Sequence[Passage], parsed: Sequence[tuple[int, Support]], label: Label
) -> tuple[tuple[int, ...], bool]:
    """Passages that have a label by themselves, or else the two that lean to it most; and whether it is the latter.

    Of those that have it, only the ones that bear on the claim are shown, if any does.
    """
    agreeing = [i for _, i in sorted((-getattr(s, label), i) for i, s in parsed if s.label == label)]
    if agreeing:
        return tuple(i for i in agreeing if bears_on(claim, passages[i])) or tuple(agreeing), False
    other: Label = "refutes" if label == "supports" else "supports"
    leaning = sorted((-getattr(s, label), i) for i, s in parsed if getattr(s, label) > getattr(s, other))
    return tuple(i for _, i in leaning[:2]), len(leaning) > 1


def _closest(
    claim: str, passages: Sequence[Passage], parsed: Sequence[tuple[int, Support]], lean: Label | None
) -> tuple[int, ...]:
    """The passage nearest to an undecided claim, if one bears on it."""
    bearing = [(i, s) for i, s in parsed if bears_on(claim, passages[i])]
    if not bearing:
        return ()

    def nearness(one: tuple[int, Support]) -> tuple[float, int, int]:
        i, support = one
        return (getattr(support, lean) if lean else 0.0), len(compare(claim, passages[i]).found), -i

    return (max(bearing, key=nearness)[0],)


# -- notes


def _note(claim: str, passages: Sequence[Passage], verdict: Verdict, lean: Label | None) -> str:
    """Why a verdict is what it is, in one phrase without a stop."""
    if verdict == "disputed":
        return "passages disagree"
    if verdict == "supported":
        return ""
    replaced = replaced_term(claim, passages)
    if replaced is not None and lean != "supports":
        return f"the passages name {replaced[1]} where the claim has {replaced[0]}"
    if verdict == "refuted":
        return ""
    if not any(compare(claim, passage).found for passage in passages):
        return "no passage is about it"
    missing = missing_words(claim, passages)
    if missing:
        return f"no passage mentions {' or '.join(missing)}"
    if not any(bears_on(claim, passage) for passage in passages):
        return "no passage is about what the claim states"
    if lean is not None:
        return "no passage states it clearly"
    return "the passages are about it, but neither state nor contradict it"


# -- the rule of a judge


def decision_rule_for(config: DavinciConfig, judge: str) -> DecisionRule:
    """The decision rule of a judge.

    The shipped model is used where it was fitted to exactly this judge, in the default aggregation; anything else has
    the fused probabilities, unless a file is configured.

    Args:
        config: Names the file.
        judge: Identity of the judge.

    Raises:
        UserError: A model is configured for an aggregation that models are not fitted to.
        DataError: The configured file cannot be read, or was fitted to another judge.
    """
    is_default = config.aggregation == "witness"
    model: VerdictModel | None = None
    if config.verdicts and config.verdicts != NO_MODEL:
        if not is_default:
            raise UserError(
                f"a verdict model is fitted to aggregation 'witness', not to {config.aggregation!r}",
                hint="leave davinci.verdicts out, or set it to none",
            )
        model = load_verdict_model(Path(config.verdicts))
        if model.judge != judge:
            raise DataError(
                f"the verdict model {model} was fitted to the judge {model.judge!r}, not to {judge!r}",
                hint="fit one to this judge with training/judge/calibrate_verdicts.py",
            )
    elif not config.verdicts and is_default:
        model = next((m for m in _shipped_models() if m.judge == judge), None)
    return DecisionRule(model=model, mode=config.aggregation, threshold=config.threshold)


_SHIPPED = Path(__file__).parent / "shipped"


@cache
def _shipped_models() -> tuple[VerdictModel, ...]:
    return tuple(load_verdict_model(file) for file in sorted(_SHIPPED.glob("verdicts-*.json")))


def evidence_weights(scores: Sequence[float], credibility: Sequence[float]) -> list[float]:
    """Weights of passages: softmax of their scores, times credibility, normalised; all 0 where nothing is credible.

    Args:
        scores: One for each passage, on any scale.
        credibility: Likewise, each in [0, 1]; 0 excludes a passage.
    """
    # the best credible passage has the exponent 0, so that not all weights underflow
    best = max((score for score, one in zip(scores, credibility, strict=True) if one > 0), default=0.0)
    exponentials = [c * math.exp(s - best) if c > 0 else 0.0 for s, c in zip(scores, credibility, strict=True)]
    total = math.fsum(exponentials)
    return [value / total for value in exponentials] if total else exponentials
