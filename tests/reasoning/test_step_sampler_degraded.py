"""Step sampling on models without response prefixes or without visible tokens."""

from reason.core.messages import Prompt
from reason.reasoning.continuations import CONTINUE_INSTRUCTION
from support.scripted_model import ScriptedModel, replies
from support.step_sampling import CHAIN, ROOT, Harness, walk


class Chat(ScriptedModel, changed={"prefix": False, "top_logprobs": 0, "logprobs": False}):
    """A model without response prefixes that hides its tokens and the stop reason."""

    async def generate(self, requests, listener=None):
        made = await super().generate(requests, listener=None)
        hidden = {"token_ids": (), "logprobs": None, "stop_reason": None}
        return [[c.model_copy(update=hidden) for c in row] for row in made]


async def test_without_prefix_support_the_model_is_instructed_and_repetitions_are_cut(store):
    harness = Harness(store, Chat(replies(CHAIN)))  # it always starts its response from the beginning
    steps = await walk(await harness.sampler())
    assert [s.text for s in steps] == ["Step 1: two.", "Step 2: and two.", "The answer is 4."]
    assert steps[-1].terminal
    sent = harness.model.generate_calls[1][0].prompt
    assert [(m.role, m.content) for m in sent.messages[1:]] == [
        ("assistant", "Step 1: two.\n\n"),
        ("user", CONTINUE_INSTRUCTION),
    ]
    assert sent.prefix == ""
    assert any(what.startswith("approximate prefix") for what in harness.run.degraded)
    assert steps[1].token_ids is None
    assert steps[1].after.token_ids is None
    assert (
        harness.spent.completion_tokens == sum(s.tokens for s in steps) > len(CHAIN) + 1
    )  # the discarded tokens were paid


async def test_tokens_of_an_approximate_continuation_are_no_exact_beginning(store):
    harness = Harness(store, ScriptedModel(replies("One.\n\nTwo."), changed={"prefix": False}))
    first, second, *_ = await walk(await harness.sampler())
    assert first.after.token_ids == tuple(map(ord, "One.\n\n"))  # nothing stood before it
    assert (second.text, second.token_ids, second.after.token_ids) == ("Two.", None, None)


async def test_with_hidden_tokens_the_backend_may_report_the_end_of_the_text(store):
    class Telling(ScriptedModel):
        async def generate(self, requests, listener=None):
            made = await super().generate(requests, listener=None)
            return [[c.model_copy(update={"token_ids": (), "logprobs": None}) for c in row] for row in made]

    harness = Harness(store, Telling(replies("One.\n\nTwo.")))
    steps = await walk(await harness.sampler())
    assert [(s.text, s.end_reason, s.token_ids) for s in steps] == [("One.", "delimiter", None), ("Two.", "end", None)]
    assert harness.spent.model_calls == len(harness.model.generate_calls) == 2
    assert harness.run.degraded == []


async def test_without_a_stop_reason_a_sample_counts_as_a_step(store):
    harness = Harness(store, Chat(replies("One.\n\nTwo."), changed={"prefix": True}))
    sampler = await harness.sampler()
    (first,) = (await sampler.expand([ROOT])).expansions[0].samples
    (second,) = (await sampler.expand([first.after])).expansions[0].samples
    assert (second.text, second.end_reason) == ("Two.", "delimiter")
    assert harness.model.generate_calls[1][0].prompt.prefix == "One.\n\n"
    assert any("does not distinguish the end of a step" in what for what in harness.run.degraded)


async def test_a_prompt_of_raw_text_and_one_with_a_beginning_of_its_own(store):
    harness = Harness(store, ScriptedModel(replies(CHAIN)))
    steps = await walk(await harness.sampler(prompt=Prompt(text="assistant: ")))
    assert steps[-1].after.text == CHAIN
    steps = await walk(await harness.sampler("s", prompt=Prompt.user("q", prefix="Step 1:")))
    assert "Step 1:" + steps[-1].after.text == CHAIN
    assert harness.model.generate_calls[-1][0].prompt.prefix == CHAIN.rpartition("The answer")[0]
