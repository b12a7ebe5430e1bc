"""The decision on a claim: gates, disputes, what is shown, why it is not more certain, and which model decides."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import DataError, UserError
from reason.core.files import write_fitted_file
from reason.reasoning.knowledge import Passage
from reason.verify.davinci.decision import (
    _SHIPPED,
    ClaimDecision,
    DavinciConfig,
    DecisionRule,
    VerdictModel,
    decided_label,
    decision_rule_for,
    load_verdict_model,
)
from reason.verify.davinci.features import FEATURE_NAMES
from reason.verify.fusion import EvidenceItem, fuse_evidence
from reason.verify.types import Support

YES, NO, SILENT = Support(0.94, 0.03, 0.03), Support(0.03, 0.94, 0.03), Support(0.02, 0.02, 0.96)
MAYBE, UNLIKELY = Support(0.6, 0.1, 0.3), Support(0.1, 0.6, 0.3)
CLAIM = "The bridge opened on 12 June 1926."
RIGHT = "The bridge was opened on 12 June 1926."
WRONG = "The bridge was opened on 13 June 1926."
UNRELATED = "The bridge was not damaged in the flood of 1953."
SHIPPED = [load_verdict_model(file) for file in sorted(_SHIPPED.glob("verdicts-*.json"))]


def decide(claim: str, *judged: tuple[str, Support | None], **rule: Any) -> ClaimDecision:
    passages = [Passage(id=f"p{i}", source=f"d{i}", text=text) for i, (text, _) in enumerate(judged)]
    return DecisionRule(**rule).decide(claim, passages, [s for _, s in judged])


def test_a_decisive_verdict_needs_its_threshold():
    assert decide(CLAIM, (RIGHT, YES)).verdict == "supported"
    assert decide(CLAIM, (WRONG, NO)).verdict == "refuted"
    held = decide(CLAIM, (RIGHT, MAYBE))
    assert (held.verdict, held.label, held.lean, held.threshold) == ("not_enough_evidence", "supports", "supports", 0.8)
    assert decide(CLAIM, (RIGHT, MAYBE), threshold=0.5).verdict == "supported"
    unsure = decide(CLAIM, (RIGHT, Support(0.4, 0.3, 0.3)))
    assert (unsure.verdict, unsure.label, unsure.lean) == ("not_enough_evidence", "supports", None)
    silent = decide(CLAIM, (RIGHT, SILENT))
    assert (silent.verdict, silent.lean, silent.threshold, silent.reason) == (
        "not_enough_evidence",
        None,
        0.0,
        "silent",
    )


def test_an_unrelated_passage_neither_disputes_nor_is_shown_beside_one_that_is_not():
    assert decide(CLAIM, (UNRELATED, SILENT)).shown == ()
    undecided = decide(CLAIM, (UNRELATED, NO), (RIGHT, YES))
    assert (undecided.verdict, undecided.shown) == ("not_enough_evidence", (1,))
    supported = decide(CLAIM, (UNRELATED, Support(0.98, 0.01, 0.01)), (RIGHT, YES))
    assert (supported.verdict, supported.shown) == ("supported", (1,))


def test_a_dispute_needs_two_passages_that_each_pass_by_themselves():
    disputed = decide(CLAIM, (WRONG, NO), (UNRELATED, NO), (RIGHT, YES))
    assert (disputed.verdict, disputed.reason, disputed.note) == ("disputed", "conflict", "passages disagree")
    assert disputed.shown == (2, 0)
    assert decide(CLAIM, (RIGHT, YES), (WRONG, UNLIKELY)).verdict != "disputed"
    assert decide(CLAIM, (RIGHT, MAYBE), (WRONG, NO)).verdict != "disputed"


def test_passages_that_agree_are_shown_the_clearest_first():
    decided = decide(CLAIM, (RIGHT, Support(0.8, 0.1, 0.1)), ("Bread is baked.", SILENT), (f"{RIGHT} Yes.", YES))
    assert (decided.verdict, decided.shown, decided.is_joint) == ("supported", (2, 0), False)


def test_two_passages_that_lean_to_a_verdict_are_shown_where_none_has_it_by_itself():
    leaning = Support(0.45, 0.05, 0.5)
    judged = ((RIGHT, leaning), ("Bread is baked.", SILENT), ("Trams crossed it from that day in June.", leaning))
    decided = decide(CLAIM, *judged, threshold=0.5)
    assert (decided.verdict, decided.shown, decided.is_joint) == ("supported", (0, 2), True)


def test_unparsed_passages_are_left_out():
    decided = decide(CLAIM, ("The bridge opened.", None), (RIGHT, YES))
    assert (decided.verdict, decided.shown) == ("supported", (1,))
    assert decide(CLAIM, (RIGHT, None)).reason == "no_evidence"


# -- why not more


@pytest.mark.parametrize(
    ("claim", "judged", "note"),
    [
        (CLAIM, [], "no evidence was found"),
        (CLAIM, [("Bread is baked.", SILENT)], "no passage is about it"),
        ("The bridge has a toll.", [("The bridge has two lanes.", SILENT)], "no passage mentions a toll"),
        (CLAIM, [(UNRELATED, SILENT)], "no passage mentions 12 June or 1926"),
        (CLAIM, [(WRONG, SILENT)], "the passages name 13 June where the claim has 12 June"),
        (CLAIM, [(WRONG, NO)], "the passages name 13 June where the claim has 12 June"),
        (CLAIM, [(RIGHT, MAYBE)], "no passage states it clearly"),
        (CLAIM, [(RIGHT, SILENT)], "the passages are about it, but neither state nor contradict it"),
        (CLAIM, [(RIGHT, YES)], ""),
        (CLAIM, [(RIGHT, YES), (WRONG, NO)], "passages disagree"),
    ],
)
def test_the_reason_is_one_plain_phrase(claim, judged, note):
    assert decide(claim, *judged).note == note


# -- which model decides


@pytest.mark.parametrize("model", SHIPPED, ids=str)
def test_the_shipped_model_is_used_for_exactly_its_judge(model):
    rule = decision_rule_for(DavinciConfig(), model.judge)
    assert rule.model == model
    assert rule.thresholds() == (model.supported, model.refuted)
    for judge in ("lexical-0", "nli-x", "judge-letters-1:model", "judge-votes-1:model"):
        assert decision_rule_for(DavinciConfig(), judge).model is None


@pytest.mark.parametrize("changed", [{"verdicts": "none"}, {"aggregation": "mean"}])
def test_anything_else_than_what_was_fitted_has_no_model(changed):
    assert decision_rule_for(DavinciConfig(**changed), SHIPPED[0].judge).model is None


def test_without_a_model_the_fused_probabilities_are_taken_and_that_is_reported():
    decided = decide(CLAIM, (RIGHT, YES), (UNRELATED, UNLIKELY))
    items = [EvidenceItem(s, text=t, document=t, id=t) for t, s in ((RIGHT, YES), (UNRELATED, UNLIKELY))]
    assert decided.probs == fuse_evidence(items).probs
    assert not decided.is_fitted
    assert DecisionRule().thresholds() == (0.8, 0.8)
    passages = [Passage(id="p", source="d", text=RIGHT)]
    assert decision_rule_for(DavinciConfig(), SHIPPED[0].judge).decide(CLAIM, passages, [YES]).is_fitted


def test_a_file_applies_to_its_judge_alone(tmp_path):
    file = tmp_path / "v.json"
    weights = dict.fromkeys(FEATURE_NAMES, 0.0)
    model = VerdictModel(
        judge="mine", supports=weights, refutes=weights, intercepts=(0.0, 0.0), supported=0.9, refuted=0.8
    )
    write_fitted_file(model, file)
    config = DavinciConfig(verdicts=str(file))
    assert decision_rule_for(config, "mine").thresholds() == (0.9, 0.8)
    assert decision_rule_for(config.model_copy(update={"threshold": 0.7}), "mine").thresholds() == (0.7, 0.7)
    with pytest.raises(DataError, match=r"the verdict model v \(0 claims\) was fitted to the judge 'mine', not to 'b'"):
        decision_rule_for(config, "b")
    with pytest.raises(UserError, match="aggregation 'witness', not to 'mean'"):
        decision_rule_for(config.model_copy(update={"aggregation": "mean"}), "mine")
    with pytest.raises(DataError, match="there is no verdict model"):
        decision_rule_for(DavinciConfig(verdicts=str(tmp_path / "none.json")), "mine")


# -- the verdict model

ZERO = dict.fromkeys(FEATURE_NAMES, 0.0)

RATIOS = VerdictModel(
    judge="",
    supports=ZERO | {"supports": 1.0},
    refutes=ZERO | {"refutes": 1.0},
    intercepts=(0.0, 0.0),
    supported=0.8,
    refuted=0.8,
)
"""The judge's probabilities of one passage as they are."""


def test_log_ratios_with_weight_1_are_the_judges_probabilities():
    stated = Support(0.7, 0.2, 0.1)
    logs = {"supports": math.log(0.7 / 0.1), "refutes": math.log(0.2 / 0.1)}
    assert RATIOS.probabilities(tuple((ZERO | logs).values())) == pytest.approx(stated)


@given(st.lists(st.floats(-14, 14), min_size=len(FEATURE_NAMES), max_size=len(FEATURE_NAMES)))
def test_probabilities_are_a_distribution(values):
    probs = RATIOS.probabilities(values)
    assert math.fsum(probs) == pytest.approx(1)
    assert all(0 <= p <= 1 for p in probs)


@pytest.mark.parametrize(
    ("probs", "label"),
    [
        (Support(0.8, 0.1, 0.1), "supports"),
        (Support(0.79, 0.11, 0.1), "neutral"),
        (Support(0.1, 0.7, 0.2), "refutes"),
        (Support(0.1, 0.69, 0.21), "neutral"),
        (Support(0.1, 0.1, 0.8), "neutral"),
    ],
)
def test_a_threshold_itself_passes_and_each_label_has_its_own(probs, label):
    assert decided_label(probs, 0.8, 0.7) == label


def test_ties_go_to_the_more_careful_label():
    assert decided_label(Support(0.4, 0.4, 0.2), 0.0, 0.0) == "refutes"
    assert decided_label(Support(0.4, 0.2, 0.4), 0.0, 0.0) == "neutral"


def test_a_file_of_a_model_is_read_and_one_with_other_features_is_refused(tmp_path):
    path = tmp_path / "v.json"
    write_fitted_file(RATIOS, path)
    loaded = load_verdict_model(path)
    assert loaded == RATIOS.model_copy(update={"name": "v"})
    assert loaded.digest == RATIOS.digest
    raw = json.loads(path.read_text())
    raw["supports"]["share of vowels"] = raw["supports"].pop("names missing")
    path.write_text(json.dumps(raw))
    with pytest.raises(DataError, match="features differ from those of this version: names missing, share of vowels"):
        load_verdict_model(path)


def test_each_shipped_model_keeps_its_bounds_and_is_of_one_judge():
    assert {"verdicts-base", "verdicts-lexical", "verdicts-small"} <= {model.name for model in SHIPPED}
    assert len({model.judge for model in SHIPPED}) == len(SHIPPED)
    for model in SHIPPED:
        assert all(s.false_supported <= 0.05 for s in model.scores), model.name
        assert min(model.supported, model.refuted) >= 0.5
