"""Broken responses of a backend as a run sees them: what they cost, what is void, and who has seen their text."""

import pytest
from reason.core.errors import BackendUnavailable
from reason.core.events import SampleFinished, TextDelta
from reason.core.messages import Chunk, Prompt, Request, SamplingParams, Usage
from reason.serving.metered.model import MeteredModel
from support.scripted_model import ScriptedModel, replies
from support.stored_runs import RunHarness

LOST = Usage(prompt_tokens=7, completion_tokens=3)
REQUEST = Request(prompt=Prompt.user("?"), sampling=SamplingParams(max_tokens=20))


class Breaking(ScriptedModel):
    """A model whose response breaks off after three characters, and is generated again."""

    fails = False

    async def generate(self, requests, listener=None):
        self.seen = [bool(listener(Chunk(text=text, token_ids=(ord(text),)))) for text in "gre"]
        if self.fails:
            raise BackendUnavailable("the engine is gone")
        listener(Chunk(lost=LOST, restarts=True))
        return await super().generate(requests, listener)


@pytest.fixture
def harness(store):
    return RunHarness(store, Breaking(replies("blue")))


async def sample(harness, *, role="main", stream_text=False, listener=None):
    await harness.begin()
    harness.run.stream_text = stream_text
    [[made]] = await MeteredModel(harness.model, role, harness.run).generate([REQUEST], listener)
    return made


async def test_a_sample_that_begins_again_is_its_second_text_and_both_are_charged(harness):
    made = await sample(harness, role="judge", stream_text=True)
    assert (made.text, made.usage.completion_tokens) == ("blue", 5)
    assert harness.spent.completion_tokens == 5 + LOST.completion_tokens
    assert harness.spent.prompt_tokens == made.usage.prompt_tokens + LOST.prompt_tokens
    # no second text is streamed
    events = harness.sink.events
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "gre"
    assert [e.completion.text for e in events if isinstance(e, SampleFinished)] == ["blue"]


@pytest.mark.parametrize(
    ("role", "stream_text", "listens", "seen"),
    [
        ("main", False, None, False),
        ("main", True, None, True),
        ("judge", True, None, False),  # strategies read it
        ("judge", False, True, True),
        ("main", False, False, False),
    ],
)
async def test_the_backend_is_told_whether_a_client_has_seen_a_text(harness, role, stream_text, listens, seen):
    listener = None if listens is None else lambda chunk: listens
    await sample(harness, role=role, stream_text=stream_text, listener=listener)
    assert harness.model.seen == [seen] * 3


async def test_what_was_received_before_a_call_failed_is_charged(harness):
    harness.model.fails = True
    with pytest.raises(BackendUnavailable):
        await sample(harness)
    assert harness.spent.completion_tokens == 3
