"""Prompts of a run begin alike: nothing that varies comes before the question, so prompt caches keep their prefixes."""

import pytest
from reason.core.store.sqlite import SqliteStore
from reason.reasoning.conformance import QUESTION, PlainModel, TrialRunner
from reason.reasoning.strategy import STRATEGIES

NEEDS_MORE = {"hogwild", "logprob", "rag"}
"""Of these the model or the question of the conformance kit is not enough."""


@pytest.mark.parametrize("name", sorted(set(STRATEGIES.names()) - NEEDS_MORE))
async def test_what_precedes_the_question_is_the_same_in_every_run(name, tmp_path, monkeypatch):
    heads = set()
    generate = PlainModel.generate

    async def recorded(self, requests, listener=None):
        for request in requests:
            text = "\n".join(message.content for message in request.prompt.messages) or request.prompt.text or ""
            assert QUESTION.text in text
            heads.add(text.partition(QUESTION.text)[0])
        return await generate(self, requests, listener)

    monkeypatch.setattr(PlainModel, "generate", recorded)
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    runner = TrialRunner(STRATEGIES.load(name), {}, QUESTION, store)
    by_seed = []
    for seed in (1, 2, 3):
        heads = set()
        await runner.run(f"seed-{seed}", seed=seed)
        by_seed.append(heads)
    await store.aclose()
    assert by_seed[0]
    assert by_seed[0] == by_seed[1] == by_seed[2]
