"""Scoring and choosing among samples on real weights: a judge that shares the engine, self-evaluation, the others."""

import pytest
from reason import Reasoner, Settings
from reason.core.settings import LocalSettings

QUESTION = "What is the capital of France?"
JUDGE = "judge/local/smollm2-135m"

pytestmark = pytest.mark.real


@pytest.fixture
def settings(tmp_path, smollm2_files):
    return Settings(
        model="local/smollm2-135m",
        store=tmp_path / "runs.sqlite3",
        cache_dir=smollm2_files.directory.parent.parent,
        seed=1,
        local=LocalSettings(threads=1),
    )


async def ask(settings, strategy, reward=None, **parameters):
    parameters = {"n": 3, "max_tokens": 24, **parameters}
    async with Reasoner(strategy=strategy, parameters=parameters, reward_model=reward, settings=settings) as reasoner:
        answer = await reasoner.aask(QUESTION)
        replayed = await reasoner.areplay(answer.run_id)
        engines = len(reasoner._models._models)
    assert replayed.model_dump(exclude={"usage"}) == answer.model_dump(exclude={"usage"})
    return answer, engines


def about_the_answer(answer):
    """What was degraded, but for the attempts that were cut: how many are differs from processor to processor."""
    return [note for note in answer.degraded if " cut at max_tokens=24" not in note]


async def test_a_judge_scores_and_loads_no_weights_of_its_own(settings):
    answer, engines = await ask(settings, "best-of-n", JUDGE)
    assert engines == 1
    scores = [c.score for c in answer.candidates]
    assert all(0 < score < 1 for score in scores)
    finished = [i for i, c in enumerate(answer.candidates) if c.finish_reason == "stop" or c.answer is not None]
    best = max(finished or range(3), key=lambda i: (scores[i], -i))
    assert answer.text == answer.candidates[best].text
    assert answer.confidence == scores[best]
    assert answer.usage.reward_calls == len({c.text for c in answer.candidates})
    assert about_the_answer(answer) == ([] if answer.answer is not None else ["no answer could be read from 3 samples"])


async def test_the_model_evaluates_itself(settings):
    answer, _ = await ask(settings, "best-of-n", score="self-evaluation")
    different = len({c.text for c in answer.candidates})
    assert answer.usage.model_calls == 1 + 2 * different + 2
    assert [c.score is None for c in answer.candidates] == [False] * 3
    # what the samples say differs from processor to processor
    assert about_the_answer(answer) == ([] if answer.answer is not None else ["no answer could be read from 3 samples"])
    one_method, _ = await ask(settings, "self-consistency")
    assert [c.text for c in one_method.candidates] == [c.text for c in answer.candidates]
