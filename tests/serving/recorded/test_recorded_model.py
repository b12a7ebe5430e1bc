"""`recorded/POOL:MODEL`: which recorded sample a request gets, what it holds, what is refused, and in which order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import CapabilityMissing, DataError, UnknownName, UserError
from reason.core.messages import (
    Chunk,
    Completion,
    LogitsProcessorSpec,
    Message,
    Prompt,
    Request,
    SamplingParams,
    Thought,
    Tool,
)
from reason.core.settings import Settings
from reason.core.types import Question
from reason.reasoning.answers.extraction import extract_answer
from reason.reasoning.prompts import question_prompt, step_by_step_instruction
from reason.serving.factory import load_model
from reason.serving.recorded.model import RecordedModel, RecordedQuestion, load_recorded
from reason.serving.recorded.pool import NotInPool, PoolSample
from support.recorded_pools import model_of, sample, samples, write

ASK = Prompt.user("sums:q1")


def request(n: int = 1, *, seed: int | None = None, indices: tuple[int, ...] | None = None, **more: object) -> Request:
    sampling = SamplingParams.model_validate({"max_tokens": 10_000, "n": n, "seed": seed, **more})
    return Request(prompt=ASK, sampling=sampling, sample_indices=indices)


async def serve(model: RecordedModel, n: int = 1, **more: Any) -> list[Completion]:
    (served,) = await model.generate([request(n, **more)])
    return served


# -- names


async def test_a_model_string_names_pool_and_model(tmp_path):
    rows = [*samples(["4"], model="org/small:8b"), *samples(["5"], model="large")]
    path = write(tmp_path, rows, "two.jsonl.gz")
    small = await load_model(f"recorded/{path}:org/small:8b", Settings())
    assert [c.text for c in (await small.generate([request()]))[0]] == ["The answer is: 4"]
    assert small.identity.startswith("recorded/org/small:8b@")
    with pytest.raises(UserError, match="has samples of 2 models") as caught:
        load_recorded(f"recorded/{path}")
    assert f"recorded/{path}:org/small:8b" in caught.value.hint
    with pytest.raises(UnknownName, match="did you mean") as unknown:
        load_recorded(f"recorded/{path}:larg")
    assert unknown.value.nearest == (f"recorded/{path}:large",)
    with pytest.raises(UserError, match="names no pool"):
        load_recorded("recorded/samples.json:m")
    with pytest.raises(DataError, match="there is no pool"):
        load_recorded("recorded/absent.jsonl")


def test_the_identity_follows_the_samples_not_the_path(tmp_path):
    rows = samples(["4", "5"])
    assert model_of(tmp_path, rows, "a.jsonl").identity == model_of(tmp_path, rows, "b.jsonl.gz").identity
    assert model_of(tmp_path, rows, "a.jsonl").identity != model_of(tmp_path, rows[:1], "c.jsonl").identity


# -- the permutation


@given(count=st.integers(1, 60), seed=st.integers(0, 2**64), more=st.integers(1, 5))
def test_an_order_has_every_sample_once_and_depends_on_seed_and_question_alone(count, seed, more):
    rows = tuple(samples([str(i) for i in range(count + more)]))
    question = RecordedQuestion("sums", "q1", "2 + 2?", rows[:count])
    order = [s.sample for s in question.order(seed)]
    assert sorted(order) == list(range(count))
    assert order == [s.sample for s in question.order(seed)]
    longer = [s.sample for s in RecordedQuestion("sums", "q1", "2 + 2?", rows).order(seed)]
    assert [number for number in longer if number < count] == order, "more samples leave the order of the others"


def test_orders_are_uniform_over_seeds():
    question = RecordedQuestion("sums", "q1", "", tuple(samples(["a", "b", "c"])))
    orders = [tuple(s.answer for s in question.order(seed)) for seed in range(6000)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6
    assert all(880 < count < 1120 for count in counts)  # 1000 ± 4 standard deviations


async def test_indices_follow_the_seeds_order_however_they_are_requested(tmp_path):
    model = model_of(tmp_path, samples([str(i) for i in range(12)]))
    together = [c.text for c in await serve(model, 12, seed=3)]
    assert sorted(together) == sorted(f"The answer is: {i}" for i in range(12))
    assert [c.text for c in await serve(model, 12, seed=3, indices=(7, 2))] == [together[7], together[2]]
    assert [c.text for c in await serve(model, 12, seed=4)] != together
    unseeded = await serve(model, 12)
    assert [c.text for c in unseeded] == [f"The answer is: {i}" for i in range(12)], "as recorded"


# -- what a sample holds


READ_BACK = {
    "number": ("72", "-1,000", "3/4", "204"),
    "math": ("\\frac{1}{2}", "x^2 + 1"),
    "yes_no": ("yes", "no"),
    "text": ("B", "05/01/2021", "Charles Darwin", "민사소송법/제420조 | 행정소송법/제8조"),
    "auto": ("B", "204", "Charles Darwin"),
}


@pytest.mark.parametrize(("answer", "kind"), [(answer, kind) for kind, all_ in READ_BACK.items() for answer in all_])
async def test_the_answer_is_read_back_where_no_text_was_recorded(tmp_path, answer, kind):
    (served,) = await serve(model_of(tmp_path, samples([answer])))
    read = extract_answer(served.text, Question(text="sums:q1", kind=kind))
    assert read is not None
    assert read.value == answer.replace(",", "")


async def test_nothing_is_read_where_no_answer_was_recorded(tmp_path):
    (served,) = await serve(model_of(tmp_path, samples([None])))
    assert served.text == ""
    assert extract_answer(served.text, Question(text="sums:q1", kind="number")) is None


async def test_everything_recorded_is_served(tmp_path):
    logprobs = (-0.5, -0.25, -0.125, -1.0)
    row = sample(
        text="2 + 2 = 4.",
        completion_tokens=4,
        token_logprobs=logprobs,
        prompt_tokens=21,
        finish_reason="length",
        usd=0.02,
    )
    model = model_of(tmp_path, [row])
    (served,) = await serve(model, logprobs=True)
    assert (served.text, served.logprobs, served.finish_reason, served.stop_reason) == (
        "2 + 2 = 4.", logprobs, "length", None
    )  # fmt: skip
    usage = served.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cost_usd) == (21, 4, 0.02)
    assert model.count_tokens(ASK) == 21
    capabilities = model.capabilities
    assert (capabilities.logprobs, capabilities.seed, capabilities.prefix) == (True, True, False)
    assert (capabilities.usd_per_prompt_token, capabilities.usd_per_completion_token) == (0.0, 0.005)
    assert (await serve(model))[0].logprobs is None, "only if requested"


async def test_the_mean_stands_for_every_token_where_tokens_have_no_log_probability(tmp_path):
    model = model_of(tmp_path, [sample(completion_tokens=3, mean_logprob=-0.5)])
    assert (await serve(model, logprobs=True))[0].logprobs == (-0.5, -0.5, -0.5)


async def test_what_is_not_recorded_is_not_invented(tmp_path):
    model = model_of(tmp_path, [sample(completion_tokens=None)])
    (served,) = await serve(model)
    assert served.usage.completion_tokens == 1, "a sample of unknown length counts as one token"
    assert (served.finish_reason, served.stop_reason, served.usage.cost_usd) == ("stop", None, None)
    assert (model.capabilities.logprobs, model.capabilities.price_known) == (False, False)
    assert model.count_tokens(ASK) is None
    with pytest.raises(CapabilityMissing, match="logprobs"):
        await serve(model, logprobs=True)


def test_a_capability_is_one_of_every_sample(tmp_path):
    rows = [sample(number=0, mean_logprob=-1.0, usd=0.1), sample(number=1)]
    capabilities = model_of(tmp_path, rows).capabilities
    assert (capabilities.logprobs, capabilities.usd_per_completion_token) == (False, None)


# -- limits


async def test_max_tokens_cuts_a_sample_where_the_model_would_have_been_cut(tmp_path):
    row = sample(text="abcdefghij", completion_tokens=20, usd=0.2, token_logprobs=(-1.0,) * 20)
    model = model_of(tmp_path, [row])
    (cut,) = await serve(model, max_tokens=5, logprobs=True)
    assert (cut.text, cut.finish_reason, cut.usage.completion_tokens) == ("ab", "length", 5)
    assert len(cut.logprobs or ()) == 5
    assert cut.usage.cost_usd == pytest.approx(0.05)
    (whole,) = await serve(model, max_tokens=20)
    assert (whole.text, whole.finish_reason) == ("abcdefghij", "stop")


async def test_a_cut_sample_without_text_has_no_answer(tmp_path):
    (cut,) = await serve(model_of(tmp_path, samples(["4"], [10])), max_tokens=9)
    assert (cut.text, cut.finish_reason, cut.usage.completion_tokens) == ("", "length", 9)


async def test_a_stop_string_ends_a_recorded_text(tmp_path):
    model = model_of(tmp_path, [sample(text="one. two. three.", completion_tokens=16)])
    (cut,) = await serve(model, stop=(" three", ". t"))
    assert (cut.text, cut.stop_reason, cut.usage.completion_tokens) == ("one", ". t", 6)
    unshown = model_of(tmp_path, samples(["4"]), "unshown.jsonl")
    assert unshown.capabilities.profile.refused("stop", thinking=False)
    with pytest.raises(CapabilityMissing, match="'stop'"):
        await serve(unshown, stop=("\n",))


async def test_recorded_thoughts_have_a_limit_of_their_own(tmp_path):
    rows = samples(["4", "5"], [110, 40], thinking_tokens=30)
    rows[0] = rows[0].model_copy(update={"thinking_tokens": 100})
    model = model_of(tmp_path, rows)
    profile = model.capabilities.profile
    assert (profile.thinks, profile.thought, profile.max_thinking_tokens) == ("always", "hidden", 100)
    whole, _ = await serve(model, 2, max_tokens=10)
    assert (whole.text, whole.usage.thinking_tokens, whole.answer_tokens) == ("The answer is: 4", 100, 10)
    assert whole.thought == Thought(tokens=100)
    cut, whole = await serve(model, 2, max_tokens=10, thinking_tokens=50)
    assert (cut.text, cut.finish_reason, cut.usage.completion_tokens) == ("", "thinking", 50)
    assert cut.thought == Thought(tokens=50, closed=False)
    assert whole.text == "The answer is: 5"


# -- matching a prompt with a question


def rows_with_texts(*texts: str) -> list[PoolSample]:
    return [sample(f"q{i}", question=text, answer=str(i)) for i, text in enumerate(texts)]


@pytest.mark.parametrize("kind", ["auto", "number", "math", "text", "yes_no"])
async def test_a_prompt_of_the_project_finds_its_question(tmp_path, kind):
    texts = ("What is 2 + 2?", "What is 2 + 2?\n\nGive a reason.", "A robe takes 2 bolts.  How many?\n- one\n- two")
    model = model_of(tmp_path, rows_with_texts(*texts))
    for i, text in enumerate(texts):
        question = Question(text=text, kind=kind)
        for prompt in (
            question_prompt(question),
            question_prompt(question, step_by_step_instruction(question), system="You are a careful judge."),
            Prompt(text=text),
        ):
            assert model.question_of(prompt).question_id == f"q{i}"


def test_the_options_are_part_of_a_question(tmp_path):
    question = Question(text="Which is a colour?", choices=("red", "seven"))
    model = model_of(tmp_path, rows_with_texts("Which is a colour?\n\nA) red\nB) seven", "Which is a city?"))
    asked = question_prompt(question, step_by_step_instruction(question))
    assert model.question_of(asked).question_id == "q0"
    other = question_prompt(Question(text="Which is a city?", choices=("red", "Rome")))
    with pytest.raises(NotInPool, match="the prompt has options after sums:q1") as caught:
        model.question_of(other)
    assert "recorded order" in caught.value.hint


def test_what_is_no_plain_question_is_refused_with_a_remedy(tmp_path):
    model = model_of(tmp_path, samples(["4"]))
    tool = Tool(name="look_up")
    conversation = Prompt(messages=(*ASK.messages, Message(role="assistant", content="4"), Message(role="user")))
    with pytest.raises(NotInPool, match="no plain question but a conversation") as caught:
        model.question_of(conversation)
    assert "review" in caught.value.hint
    with pytest.raises(NotInPool, match="more than an instruction after sums:q1"):
        model.question_of(Prompt.user("sums:q1\n\nOthers have answered:\n\nA: 4\n\nJudge each answer."))
    with pytest.raises(NotInPool, match=r"pool\.jsonl has no samples of m for the question 'What is 2\?'") as caught:
        model.question_of(Prompt.user("What is 2?"))
    assert "reason pool show" in caught.value.hint
    for prompt, feature in (
        (ASK.with_prefix("So"), "prefix"),
        (ASK.with_thought(Thought(text="Hm", closed=False)), "prefix"),
        (ASK.model_copy(update={"tools": (tool,)}), "tools"),
    ):
        with pytest.raises(CapabilityMissing, match=feature):
            model.question_of(prompt)


def test_two_questions_with_one_text_are_told_apart_by_no_prompt(tmp_path):
    model = model_of(tmp_path, rows_with_texts("2 + 2?", "2 +  2?"))
    with pytest.raises(NotInPool, match="sums:q0 and sums:q1 have the same text"):
        model.question_of(Prompt.user("2 + 2?"))


async def test_an_exhausted_pool_names_question_model_and_remedy(tmp_path):
    model = model_of(tmp_path, samples(["4", "5"]))
    with pytest.raises(NotInPool, match="2 samples of m for sums:q1, and sample 3 is requested") as caught:
        await serve(model, 3)
    assert caught.value.hint.endswith("--set n=2")
    assert (caught.value.exit_code, caught.value.http_status) == (2, 400)


@pytest.mark.parametrize(
    ("needed", "feature"),
    [
        ({"json_schema": {"type": "object"}}, "json_schema"),
        ({"logits_processors": (LogitsProcessorSpec(name="entropy_probe"),)}, "logits_processors"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"ignore_eos": True}, "ignore_eos"),
    ],
)
async def test_what_a_pool_cannot_do_is_refused(tmp_path, needed, feature):
    model = model_of(tmp_path, samples(["4"]))
    with pytest.raises(CapabilityMissing, match=feature) as caught:
        await serve(model, **needed)
    assert "complete samples of plain questions" in str(caught.value)
    with pytest.raises(CapabilityMissing, match="scoring"):
        await model.score(ASK, ["4"])
    with pytest.raises(CapabilityMissing, match="next_token"):
        await model.next_token([ASK])


# -- progress


async def test_the_shortest_sample_finishes_first(tmp_path):
    model = model_of(tmp_path, samples(list("abcd"), [30, 10, 40, 10]))
    heard = []
    await model.generate([request(4)], heard.append)
    assert [c.sample_index for c in heard if c.completion] == [1, 3, 0, 2]


async def test_calls_in_flight_together_advance_together(tmp_path):
    """Three lanes: as one finishes the next begins, at that step."""
    lengths = [30, 10, 25, 12, 9, 8]
    model = model_of(tmp_path, samples(list("abcdef"), lengths))
    finished = []
    waiting = iter(range(6))

    async def lane() -> None:
        for index in waiting:
            await serve(model, 6, indices=(index,))
            finished.append(index)

    await asyncio.gather(*(lane() for _ in range(3)))
    # 1 at 10, then 3 to 22, then 4 to 31; 2 at 25, then 5 to 33; 0 at 30
    assert finished == [1, 3, 2, 0, 4, 5]


async def test_a_cancelled_sample_has_generated_what_it_had_at_that_step(tmp_path):
    model = model_of(tmp_path, samples(list("abc"), [30, 10, 40]))
    heard = []

    def listen(chunk: Chunk) -> None:
        heard.append(chunk)
        if len(heard) == 1:
            work.cancel()

    work = asyncio.ensure_future(model.generate([request(3)], listen))
    with pytest.raises(asyncio.CancelledError):
        await work
    assert [(c.sample_index, c.tokens, c.completion is None) for c in heard] == [
        (1, 10, False), (0, 10, True), (2, 10, True)
    ]  # fmt: skip
    assert [c.text for c in heard[1:]] == ["", ""], "an unfinished sample shows no answer"
    assert model.num_in_flight == 0


async def test_the_clock_stands_still_while_a_finished_sample_is_worked_on(tmp_path, clock):
    model = model_of(tmp_path, samples(list("ab"), [10, 20]))
    finished = []

    async def call(index: int, seconds: float) -> None:
        asked = request(2, indices=(index,))
        with model.hold_replay([asked]):
            await model.generate([asked])
            finished.append(f"finished {index}")
            await asyncio.sleep(seconds)
            finished.append(f"stored {index}")

    await clock.run(asyncio.gather(call(0, 5), call(1, 0)))
    assert finished == ["finished 0", "stored 0", "finished 1", "stored 1"]


async def test_questions_do_not_wait_for_each_other(tmp_path):
    model = model_of(tmp_path, [*samples(["a"], [5]), *samples(["b"], [500], question_id="q2")])
    with model.hold_replay([request()]):
        other = Request(prompt=Prompt.user("sums:q2"), sampling=SamplingParams(max_tokens=1000))
        assert (await model.generate([other]))[0][0].text == "The answer is: b"


async def test_an_error_of_the_listener_reaches_the_caller(tmp_path):
    model = model_of(tmp_path, samples(list("ab"), [1, 2]))

    def fail(chunk: Chunk) -> None:
        raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        await model.generate([request(2)], fail)
    assert [c.text for c in await serve(model, 1)] == ["The answer is: a"]


async def test_closing_cancels_what_is_in_flight(tmp_path):
    model = model_of(tmp_path, samples(list("ab"), [1, 2]))
    with model.hold_replay([request()]):
        first = asyncio.ensure_future(model.generate([request(1)]))
        await asyncio.sleep(0)
        with model.hold_replay([request()]):
            await asyncio.sleep(0)
            await model.aclose()
    assert first.cancelled()
