"""Attribution on SmolLM2-135M: a claim that repeats one of several sentences is traced to that sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from statistics import fmean

import pytest
from reason.serving.local.engine import LocalModel
from reason.serving.model_files.find import ModelFiles
from reason.verify.attribution import (
    FULL_CONTEXT,
    NOTHING,
    ContextPrompt,
    Segment,
    attribute_by_context,
    attribute_claims,
    score_claims,
)
from support.attribution_contexts import FACTS, CopiedFact, context_of

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def model(smollm2_files: ModelFiles) -> Iterator[LocalModel]:
    model = LocalModel.load(smollm2_files, weight_format="fp32", threads=1)
    yield model
    asyncio.run(model.aclose())


async def log_prob_drop(fact: CopiedFact, segments: Sequence[Segment], model: LocalModel, removed: str) -> float:
    """How much less likely the fact's claim becomes without a part, in nats per token.

    After the top-k log-probability drop of ContextCite (Cohen-Wang et al. 2024), per token.
    """
    visible = ContextPrompt.of(segments)
    prompts = [visible.prompt(), visible.prompt([s.name != removed for s in visible.context])]
    (full, reduced), _ = await score_claims(model, [fact.answer], prompts)
    assert full is not None
    assert reduced is not None
    return full[0].mean - reduced[0].mean


async def test_leaving_out_the_source_is_what_the_claim_misses(model):
    dropped, others = [], []
    for fact in FACTS[2:]:
        (found,), _ = await attribute_by_context([fact.claim], fact.segments, model)
        weights = {a.component: a.weight for a in found}
        assert found[0].detail["source"] == "context_driven"
        assert weights.pop(FULL_CONTEXT) > 0.5
        assert max(weights, key=lambda name: weights[name]) == fact.name
        dropped.append(weights.pop(fact.name))
        others += weights.values()
    assert fmean(dropped) > fmean(others) + 1.0
    drop = await log_prob_drop(FACTS[-1], FACTS[-1].segments, model, FACTS[-1].name)
    assert drop == pytest.approx(dropped[-1], abs=1e-4)


@pytest.mark.nightly
async def test_what_many_subsets_call_the_source_is_missed_most(model):
    fact = FACTS[0]
    sentences = (*fact.sentences, *(s for other in FACTS[1:] for s in other.sentences[:3]))
    segments = context_of(fact.question, sentences)
    (found,), _ = await attribute_by_context([fact.claim], segments, model, ablations=16, seed=1)
    assert found[1].detail["method"] == "sparse linear model of the log-odds over random subsets"
    assert found[1].component == fact.name
    top, random = [await log_prob_drop(fact, segments, model, name) for name in (fact.name, "document «note 9»")]
    assert top > 1.0 > abs(random) + 0.5


async def test_relevance_names_the_source(model):
    fact = FACTS[1]
    (found,) = await attribute_claims([fact.claim], fact.segments, model=model, levels=["whitebox"])
    assert all(a.component != NOTHING for a in found)
    assert found[0].component == fact.name
    notes = [a for a in found if a.component != "question"]
    assert notes[0].weight > 0.5 > 2 * notes[1].weight
