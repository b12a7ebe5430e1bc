"""`glimprouter` on real weights: exact entropies, what a hand-over has to compute, and a replay."""

import asyncio

import pytest
from reason.core.types import Question
from reason.reasoning.prompts import question_prompt, steps_instruction
from reason.routers.glimprouter import RoutingContext
from reason.routers.transcript import RoutedStep
from reason.serving.local.engine import LocalModel
from support.two_models import TwoModels, booked

pytestmark = pytest.mark.real

QUESTION = Question(text="Tom has 3 apples and buys 2 more. How many apples does he have?", kind="number")
SHORT = {"max_step_tokens": 12, "thinking_tokens": 72}
SEAM = 12
"""Tokens that may have to be computed again where two texts meet: they may be cut into others."""


@pytest.fixture(scope="module")
def engines(smollm2_files):
    """The same weights in two number formats are two models with a cache each."""
    opened = [LocalModel.load(smollm2_files, weight_format=form, threads=1) for form in ("bf16", "fp32")]
    yield opened
    for model in opened:
        asyncio.run(model.aclose())


@pytest.fixture
def harness(store, engines):
    return TwoModels(store, *engines)


@pytest.mark.nightly
async def test_handover_prefills_only_new_text(harness):
    await harness.begin(policy="large", question=QUESTION, max_step_tokens=12, thinking_tokens=1)
    context = RoutingContext(
        harness.strategy.config, QUESTION, harness.models, harness.run, frozenset(("large", "small"))
    )
    for writer in ("small", "large", "small", "small", "large", "large", "small"):
        draft = await context.generators[writer].write()
        context.transcript.steps.append(RoutedStep(draft.text.strip() or "Well.", writer, max(draft.tokens, 3)))
    written, seen = 0, {}
    for step, entry in zip(context.transcript.steps, context.accounting.entries, strict=True):
        if entry.writer in seen:
            assert entry.computed <= written - seen[entry.writer] + SEAM
        else:
            assert entry.computed > 2 * SEAM
        seen[entry.writer] = written
        written += step.tokens
    assert len(seen) == 2


@pytest.mark.nightly
async def test_full_entropies_match_the_complete_distribution(harness):
    made = await harness.solve(threshold=1.5, question=QUESTION, seed=2, **SHORT)
    assert (made.notes["entropy_kind"], made.notes["k"]) == ("full", 0)
    base, steps = question_prompt(QUESTION, steps_instruction(QUESTION)), [s.text for s in made.best.steps]
    for i, (who, entropy) in enumerate(zip(made.notes["writers"], made.notes["entropies"], strict=True)):
        prompt = base.with_prefix("".join(s + "\n\n" for s in steps[:i]))
        (next_,) = await harness.small.next_token([prompt])
        assert entropy == pytest.approx(next_.entropy, abs=2e-2)  # bf16: other batches, other last bits
        assert who == ("large" if entropy >= 1.5 else "small")
    assert booked(made) == harness.generated()
    assert await harness.solve(threshold=1.5, question=QUESTION, seed=2, replay=True, **SHORT) == made
