"""What is told of a question, and what of it is kept."""

import math

import pytest
from reason.core.errors import BackendError, StoreError
from reason.core.run import Run
from reason.core.types import Document, Question
from reason.routers.features import extract_features, kept_vector, named_features
from reason.serving.metered.replay import ReplayEmbedding
from support.scripted_model import ScriptedModel
from support.stored_runs import RunHarness
from support.word_vectors import WordVectors

QUESTION = Question(text="What is 2 + 2?", kind="number")


@pytest.fixture
def harness(store):
    return RunHarness(store, ScriptedModel(lambda _: {"a": 0.5, "b": 0.5}))


def test_signal_values():
    question = Question(
        text="Solve $x^2 = 4$, x - 1 > 0, for 3.5 of 10 well-known cases.",
        choices=("1", "2"),
        documents=(Document(name="d", text="abc"),),
    )
    found = named_features(question)
    assert found["length"] == math.log1p(len(question.text))
    assert found["documents"] == math.log1p(3)
    assert found["choices"] == math.log1p(2)
    assert found["numerals"] == math.log1p(6)  # 2, 4, 1, 0, 3.5, 10
    assert found["operators"] == math.log1p(4)  # ^ = - >, and no hyphen
    assert found["formulas"] == math.log1p(2)
    assert found["code"] == 0
    assert [name for name, value in found.items() if name.startswith("answer") and value] == ["answer: choice"]


def test_code_is_recognised_and_formulas_are_not_code():
    program = "```python\ndef f(x):\n    return g(x);\n```"
    assert named_features(Question(text=program))["code"] == pytest.approx(math.log1p(4), abs=0.4)
    assert named_features(Question(text="What is \\frac{1}{2}\nplus 3?"))["code"] == 0


async def test_embedding_is_computed_once_and_replayed(harness):
    words = WordVectors(dimension=31)
    await harness.begin("r", strategy="auto", question=QUESTION, seed=1)
    first = await kept_vector("two words", words, harness.run)
    assert await kept_vector("two words", words, harness.run) == first
    assert words.asked == [["two words"]]
    assert math.hypot(*first) == pytest.approx(1, abs=1e-5)
    absent = ReplayEmbedding(words.name, words.identity, 31, None)
    assert await kept_vector("two words", absent, harness.run) == first
    with pytest.raises(StoreError, match="no recorded response"):
        await kept_vector("other words", absent, harness.run)
    (call,) = await harness.store.list_calls("r")
    assert "decision" in call.request  # so that no evaluation counts it as a reply


async def test_a_replay_writes_nothing(harness):
    await harness.begin("r", strategy="auto", question=QUESTION, seed=1)
    replay = Run("r", harness.run.config, harness.store, recording=False)
    await kept_vector("two words", WordVectors(dimension=31), replay)
    assert await harness.store.list_calls("r") == []


async def test_failed_embedding_is_reported_and_ignored(harness):
    class Broken(WordVectors):
        async def embed(self, texts, **_):
            raise BackendError("gone")

    await harness.begin("r", strategy="auto", question=QUESTION, seed=1)
    found = await extract_features(QUESTION, harness.run, embedding=Broken())
    assert found.vector == ()
    assert harness.run.degraded == ["the question could not be embedded (gone): its embedding counts as unknown"]
