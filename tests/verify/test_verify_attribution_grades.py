"""All grades together: the best first, those that are missing by name, and no verdict touched."""

import pytest
from reason.core.budget import Budget
from reason.core.errors import BackendUnavailable
from reason.core.messages import Usage
from reason.core.store.sqlite import SqliteStore
from reason.serving.model import Capabilities, ExplainsTokens, Relevance
from reason.verify.attribution import (
    FULL_CONTEXT,
    NOTHING,
    Segment,
    attribute_by_relevance,
    attribute_claims,
)
from reason.verify.types import Claim, Support
from support.additive_attribution_model import CLAIM, additive_script, context_of
from support.scripted_entailment import ScriptedEntailment
from support.scripted_model import ScriptedModel
from support.stored_runs import RunHarness

SAMPLES = [Segment(name="sample 1", kind="sample", text="x"), Segment(name="sample 2", kind="sample", text="no")]
SEGMENTS = [*context_of(3), *SAMPLES]
AMOUNTS = [0.5, 2.0, -0.25]


class Explaining(ScriptedModel):
    """Adds to the scripted model what a part weighs: its place, from the last."""

    asked = 0

    async def relevance(self, prompt, parts, continuation):
        self.asked += 1
        weights = tuple(float(-i) for i in range(len(parts)))
        return Relevance(
            relevance=weights,
            tokens=(3,) * len(parts),
            rest=0.25,
            logprob=-2.0,
            usage=Usage(prompt_tokens=9),
        )


def missing_levels(attributions):
    return tuple(f"{a.kind}: {a.detail['left_out']}" for a in attributions if a.component == NOTHING)


def entails(pair):
    return Support(0.9, 0.05, 0.05) if pair.claim in pair.evidence else Support(0.05, 0.9, 0.05)


def explaining():
    return Explaining(additive_script(AMOUNTS, -4.0))


@pytest.fixture
async def harness(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield lambda model: RunHarness(store, model)
    await store.aclose()


async def test_all_grades_the_best_first():
    judge = ScriptedEntailment(entails)
    (found,) = await attribute_claims([CLAIM], SEGMENTS, entailment=judge, model=explaining())
    kinds = list(dict.fromkeys(a.kind for a in found))
    assert kinds == ["whitebox", "context", "agreement", "provenance"]
    by_kind = {kind: [(a.component, a.weight) for a in found if a.kind == kind] for kind in kinds}
    assert by_kind["whitebox"] == [("d0", 0.0), ("d1", -1.0), ("d2", -2.0), ("question", -3.0)]
    assert by_kind["context"][0] == (FULL_CONTEXT, pytest.approx(2.25))
    assert [c for c, _ in by_kind["context"][1:]] == ["d1", "d0", "d2"]
    assert by_kind["agreement"] == [("sample 1", 1.0), ("sample 2", -1.0)]
    assert by_kind["provenance"] == [("sample 1", 1.0)]
    assert missing_levels(found) == ()
    assert all(a.detail["method"] for a in found)


async def test_without_model_and_judge_the_words_are_left_and_the_rest_is_named():
    (found,) = await attribute_claims([CLAIM], SEGMENTS)
    assert [a.component for a in found] == [NOTHING, NOTHING, NOTHING, "sample 1"]
    assert missing_levels(found) == (
        "whitebox: there is no model",
        "context: there is no model",
        "agreement: there is no entailment to judge samples",
    )


async def test_a_model_that_can_do_less_is_named():
    class Chat(ScriptedModel):
        capabilities = Capabilities()

    model = Chat(additive_script(AMOUNTS, -4.0), name="chat")
    assert not isinstance(model, ExplainsTokens)
    (found,) = await attribute_claims([CLAIM], SEGMENTS, model=model, levels=["context", "whitebox"])
    assert missing_levels(found) == (
        "whitebox: model 'chat' cannot look into itself",
        "context: model 'chat' cannot score given text",
    )


async def test_wanted_grades_alone_are_done():
    model = explaining()
    (found,) = await attribute_claims([CLAIM], SEGMENTS, model=model, levels=["context"])
    assert {a.kind for a in found} == {"context"}
    assert model.asked == 0


async def test_the_budget_ends_the_dear_grades_and_says_so(harness):
    table = harness(explaining())
    question = {"text": "q"}
    model = await table.begin("r", strategy="cot", question=question, budget=Budget(calls=6), seed=1)
    claims = [CLAIM, Claim(text="xx", start=0, end=2)]
    first, second = await attribute_claims(claims, SEGMENTS, model=model, levels=["context", "whitebox"])
    assert [a.component for a in first if a.kind == "whitebox"][0] == "d0"
    assert [a.component for a in second if a.kind == "whitebox"] == [NOTHING]
    told = "whitebox: the budget of 6 calls is spent (6 used); 1 of 2 claims were explained"
    assert missing_levels(first) == missing_levels(second) == (told,)
    assert len([a for a in second if a.kind == "context"]) == 4
    assert table.spent.model_calls == 6


async def test_what_was_explained_is_found_again_without_the_model(harness):
    table = harness(explaining())
    for _ in range(2):
        model = await table.begin("r", strategy="cot", question={"text": "q"}, seed=1)
        found = await attribute_by_relevance([CLAIM], SEGMENTS, model)
    assert found.attributions[0][0].detail["tokens"] == 3
    assert table.model.asked == 1
    assert table.spent.prompt_tokens == 9


async def test_a_model_that_fails_is_a_missing_grade_and_the_others_stay():
    class Broken(ScriptedModel):
        async def score(self, prompt, continuations):
            raise BackendUnavailable("the server is gone", hint="start it")

    model = Broken(additive_script(AMOUNTS, -4.0))
    (found,) = await attribute_claims([CLAIM], SEGMENTS, model=model, levels=["provenance", "context"])
    assert missing_levels(found) == ("context: the server is gone (start it)",)
    assert found[-1].component == "sample 1"
