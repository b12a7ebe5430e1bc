"""Models that think on the embedded engine: prompts, the split of thought and answer, caps, stops, schemas, workers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from reason.core.errors import ContextTooLong, UserError
from reason.core.messages import (
    Completion,
    LogitsProcessorSpec,
    Message,
    Prompt,
    Request,
    SamplingParams,
    Thought,
    Tool,
    ToolCall,
)
from reason.serving.local.engine import LocalModel
from reason.serving.local.tokenizer import Tokenizer, own_sampling
from reason.serving.logits_processors import LogitsProcessor, ProcessorState, registry
from reason.serving.logits_processors.builtin import keep_only
from reason.serving.model_files.find import ModelFiles
from reason.serving.profiles.profile import OwnSampling
from reason.serving.worker_group import GroupStep, WorkerGroupConfig, WorkerInput
from support.thinking_templates import (
    CHANNEL_TAGS,
    DEEPSEEK,
    HARMONY,
    MAGISTRAL,
    QWEN,
    R1,
    SPECIAL_TAGS,
    with_template,
)

if TYPE_CHECKING:
    from reason.serving.logits_processors.registry import Row

ASK = Prompt.user("What is 2 + 2?")
HEAD = "<|start|>user\nWhat is 2 + 2?<|end|>\n<|start|>assistant\n"
THINK, CLOSE = 259, 260
"""The tags' tokens in the tiny vocabulary."""
WORD = {
    "type": "object",
    "properties": {"w": {"enum": ["yes", "no"]}},
    "required": ["w"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def thinking_files(
    tiny_files: Callable[[str], ModelFiles], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., ModelFiles]:
    """Makes the tiny Llama with a template, once for each."""
    made: dict[tuple[str, bool], ModelFiles] = {}

    def make(template: str, *, tag_tokens: bool = True, **tags: Any) -> ModelFiles:
        if (template, tag_tokens) not in made:
            folder = tmp_path_factory.mktemp("thinks")
            made[template, tag_tokens] = with_template(
                tiny_files("llama"), folder, template, tag_tokens=tag_tokens, **tags
            )
        return made[template, tag_tokens]

    return make


@pytest.fixture
async def load() -> AsyncIterator[Callable[..., LocalModel]]:
    """Loads engines, which are closed after the test."""
    opened: list[LocalModel] = []

    def load(files: ModelFiles, **more: Any) -> LocalModel:
        opened.append(LocalModel.load(files, weight_format="fp32", threads=1, kv_cache_bytes=64 << 20, **more))
        return opened[-1]

    yield load
    for model in opened:
        await model.aclose()


Load = Callable[..., LocalModel]
Files = Callable[..., ModelFiles]


@pytest.fixture
async def thinker(load: Load, thinking_files: Files) -> LocalModel:
    """The tiny Llama with Qwen3's template: it thinks unless the template is told otherwise, and opens its thoughts."""
    return load(thinking_files(QWEN))


@pytest.fixture
async def opened(load: Load, thinking_files: Files) -> LocalModel:
    """The tiny Llama with R1's template, which opens the thought; its tags are many tokens."""
    return load(thinking_files(R1, tag_tokens=False))


def begins_thought() -> LogitsProcessorSpec:
    return LogitsProcessorSpec(name="steer", args={"ids": [THINK], "weight": 1e6, "first": 1})


def force(ids: Sequence[int], after: int) -> LogitsProcessor:
    """A processor that forces tokens after `after` others; what follows is free."""

    def process(row: Row, state: ProcessorState) -> Row:
        position = len(state.generated_ids) - after
        return keep_only(row, ids[position : position + 1]) if 0 <= position < len(ids) else row

    return process


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers `force`."""
    entry_points_in = registry.entry_points_in

    def with_force(group: str, name: str | None = None) -> Any:
        return (SimpleNamespace(name="force", load=lambda: force),) if name == "force" else entry_points_in(group, name)

    monkeypatch.setattr(registry, "entry_points_in", with_force)


def forces(model: LocalModel, text: str, after: int) -> LogitsProcessorSpec:
    return LogitsProcessorSpec(name="force", args={"ids": model._tokenizer.encode(text), "after": after})


def request(prompt: Prompt = ASK, **sampling: Any) -> Request:
    usual: dict[str, Any] = {"temperature": 0.0, "seed": 0, "max_tokens": 12, "logprobs": True}
    return Request(prompt=prompt, sampling=SamplingParams(**usual | sampling))


async def sample(model: LocalModel, prompt: Prompt = ASK, **sampling: Any) -> Completion:
    [[completion]] = await model.generate([request(prompt, **sampling)])
    assert completion.ok, completion.failure
    return completion


# -- profiles


async def test_profile_is_measured_from_the_template_unless_settings_override_it(thinker, tiny, load, thinking_files):
    profile = thinker.capabilities.profile
    assert (profile.thinks, profile.prefix, profile.thought) == ("default", "thought", "tags")
    assert profile.sources["thinks"] == "chat template"
    assert thinker.identity == f"tiny-llama-thinks+fp32{profile.digest}"
    plain = tiny.capabilities.profile
    assert (plain.thinks, plain.prefix, tiny.identity) == ("never", "answer", "tiny-llama+fp32")
    files = thinking_files(QWEN)
    model = load(files, profiles={files.name: {"thinks": "never"}})
    assert not model.capabilities.profile.can_think
    assert model.identity == "tiny-llama-thinks+fp32"
    assert model._tokenizer.render(ASK) == HEAD


def test_a_shipped_profile_does_not_hold_for_a_template_without_its_switch(tiny_files, thinking_files):
    plain = Tokenizer(tiny_files("llama").directory, "local/qwen3-0.6b")
    assert (plain.profile.thinks, plain.profile.digest) == ("never", "")
    assert Tokenizer(thinking_files(QWEN).directory, "local/qwen3-0.6b").profile.thinks == "default"
    assert Tokenizer(tiny_files("llama").directory, "local/deepseek-r1").profile.thinks == "always"


def test_own_sampling_is_the_generation_settings(tmp_path):
    assert own_sampling(tmp_path) == OwnSampling()
    (tmp_path / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "top_p": 0.95, "top_k": 20}))
    assert own_sampling(tmp_path) == OwnSampling(0.6, 0.95, 20)


async def test_a_model_samples_as_its_makers_recommend_unless_it_is_told_otherwise(tiny_files, tmp_path, load):
    files = with_template(tiny_files("llama"), tmp_path / "own", QWEN, tag_tokens=True)
    settings = files.directory / "generation_config.json"
    settings.unlink(missing_ok=True)
    settings.write_text(json.dumps({"temperature": 5.0, "top_k": 1, "eos_token_id": 2}))
    model = load(files)
    greedy = await sample(model, thinking_tokens=8, ignore_eos=True)
    asked = {"seed": 3, "thinking_tokens": 8, "max_tokens": 8, "ignore_eos": True}
    heats = [
        {"temperature": None, "default_temperature": 5.0},  # it thinks: as its makers recommend
        {"temperature": None, "default_temperature": 5.0, "effort": "none"},
        {"temperature": 5.0},
    ]
    own, quick, warm = [(await sample(model, **asked, **heat)).token_ids for heat in heats]
    assert own == greedy.token_ids[: len(own)]
    assert warm != own
    assert quick != (await sample(model, effort="none", max_tokens=8, ignore_eos=True)).token_ids


# -- prompts


@pytest.mark.parametrize(
    ("template", "prompt", "effort", "rendered"),
    [
        (QWEN, ASK, None, HEAD),
        (QWEN, ASK, "none", f"{HEAD}<think>\n\n</think>\n\n"),
        (QWEN, ASK.with_prefix("Four"), None, f"{HEAD}<think>\n\n</think>\n\n"),
        (QWEN, ASK.with_thought(Thought(closed=False)), None, f"{HEAD}<think>"),
        (QWEN, ASK.with_thought(Thought(text="\nSo", closed=False)), "none", f"{HEAD}<think>\nSo"),
        (QWEN, ASK.with_thought(Thought(text="\nSo."), "Four"), None, f"{HEAD}<think>\nSo.\n</think>\n\n"),
        (QWEN, ASK.with_thought(Thought(text="\nSo.\n")), None, f"{HEAD}<think>\nSo.\n</think>\n\n"),
        (QWEN, ASK.with_thought(Thought()), None, f"{HEAD}<think>\n\n</think>\n\n"),
        (DEEPSEEK, ASK, None, f"{HEAD}</think>"),
        (DEEPSEEK, ASK, "high", f"{HEAD}<think>"),
        (DEEPSEEK, ASK, "none", f"{HEAD}</think>"),
        (DEEPSEEK, ASK.with_prefix("Four"), "high", f"{HEAD}</think>"),
        (DEEPSEEK, ASK.with_thought(Thought(text="So.")), None, f"{HEAD}<think>So.</think>"),
        (R1, ASK, None, f"{HEAD}<think>\n"),
        (R1, ASK, "none", f"{HEAD}<think>\n\n</think>\n\n"),
        (R1, ASK.with_thought(Thought(text="So", closed=False)), None, f"{HEAD}<think>\nSo"),
        (R1, ASK.with_thought(Thought(text="So.")), None, f"{HEAD}<think>\nSo.\n</think>\n\n"),
    ],
)
def test_prompts_begin_the_response_as_requested(thinking_files, template, prompt, effort, rendered):
    tokenizer = Tokenizer(thinking_files(template).directory, "local/x")
    assert tokenizer.render(prompt, effort) == rendered
    prefix = prompt.prefix
    assert isinstance(prefix, str)
    assert tokenizer.prompt_ids(prompt, effort) == tokenizer.encode(rendered + prefix)


def test_the_tokens_of_a_thought_are_taken_as_they_are(thinking_files):
    tokenizer = Tokenizer(thinking_files(QWEN).directory, "local/x")
    head = tokenizer.encode(HEAD)
    ids = (7, 8, 9)
    open_thought = Thought(text="ignored", token_ids=ids, closed=False)
    assert tokenizer.prompt_ids(ASK.with_thought(open_thought)) == [*head, THINK, *ids]
    own = Thought(token_ids=(THINK, *ids), closed=False)  # as the model generated it
    assert tokenizer.prompt_ids(ASK.with_thought(own)) == [*head, THINK, *ids]
    closed = Thought(token_ids=(THINK, *ids))
    rest = tokenizer.encode("\n</think>\n\nFour")
    assert tokenizer.prompt_ids(ASK.with_thought(closed, "Four")) == [*head, THINK, *ids, *rest]
    own_end = Thought(token_ids=(THINK, *ids, CLOSE))
    assert tokenizer.prompt_ids(ASK.with_thought(own_end, (5,))) == [
        *head,
        THINK,
        *ids,
        CLOSE,
        *tokenizer.encode("\n\n"),
        5,
    ]
    with pytest.raises(UserError, match="token 999 in the prompt's thought"):
        tokenizer.prompt_ids(ASK.with_thought(Thought(token_ids=(999,))))


async def test_a_model_that_never_thinks_refuses_a_thought(tiny):
    with pytest.raises(UserError, match="does not think"):
        await tiny.generate([request(ASK.with_thought(Thought()))])


def test_thoughts_of_turns_with_tools_are_returned(thinking_files):
    tokenizer = Tokenizer(thinking_files(QWEN).directory, "local/x")
    call = ToolCall(name="add", arguments='{"a": 1}', id="c1")
    turns = (
        Message(role="user", content="Add."),
        Message(role="assistant", content="", tool_calls=(call,), thought=Thought(text="\nI add.\n")),
        Message(role="tool", content="2", tool_call_id="c1"),
    )
    prompt = Prompt(messages=turns, tools=(Tool(name="add"),))
    assert "<think>\nI add.\n</think>\n\n" in tokenizer.render(prompt)
    said = turns[1].model_copy(update={"tool_calls": (), "content": "Two."})
    later = Prompt(messages=(turns[0], said, Message(role="user", content="Sure?")))
    assert "I add." not in tokenizer.render(later)


# -- samples


async def test_a_sample_is_split_into_thought_and_answer(thinker):
    chunks = []
    processors = (begins_thought(), forces(thinker, "</think>\n\n", 9))
    [[made]] = await thinker.generate([request(logits_processors=processors, max_tokens=6)], chunks.append)
    assert made.token_ids[0] == THINK
    assert made.token_ids[9:12] == (CLOSE, *thinker._tokenizer.encode("\n\n"))
    assert made.thought is not None
    assert made.thought.closed
    assert made.thought.text == thinker._tokenizer.decode(made.token_ids[1:9])
    start = made.answer_from
    assert start >= 12
    assert thinker._tokenizer.decode(made.token_ids[:start]).endswith("</think>\n\n" + (start - 12) * " ")
    assert made.text.strip()
    assert len(made.token_ids) == start + 6
    assert (made.usage.completion_tokens, made.usage.thinking_tokens) == (start + 6, start)
    assert (made.answer_tokens, made.thought.tokens, made.finish_reason) == (6, start, "length")
    assert "".join(c.text for c in chunks) == made.text
    assert "".join(c.thought for c in chunks) == made.thought.text
    assert sum((c.token_ids for c in chunks), ()) == made.token_ids


async def test_answer_logprobs_are_those_after_the_thought(thinker):
    processors = (begins_thought(), forces(thinker, "</think>\n\n", 7))
    made = await sample(thinker, logits_processors=processors, max_tokens=5, top_logprobs=2)
    thought = Thought(token_ids=made.token_ids[: made.answer_from])
    [scored] = await thinker.score(ASK.with_thought(thought), [made.token_ids[made.answer_from :]])
    assert made.answer_logprobs is not None
    assert len(made.answer_logprobs) == len(made.answer_top_logprobs) == 5
    assert made.answer_logprobs == pytest.approx(scored.logprobs, abs=1e-4)
    assert made.logprob == pytest.approx(scored.logprob, abs=1e-3)


async def test_a_thought_is_continued_exactly_at_every_token(thinker, opened):
    for model, begin in ((thinker, (begins_thought(),)), (opened, ())):
        complete = await sample(model, logits_processors=begin, thinking_tokens=14, ignore_eos=True)
        assert complete.finish_reason == "thinking"
        ids = complete.token_ids
        assert len(ids) == 14
        for k in (1, 2, 7, 12):
            prompt = ASK.with_thought(Thought(token_ids=ids[:k], closed=False))
            one = await sample(model, prompt, thinking_tokens=14 - k, ignore_eos=True)
            assert one.token_ids == ids[k:]
            assert one.logprobs == pytest.approx(complete.logprobs[k:] if complete.logprobs else (), abs=1e-4)
            assert (one.text, one.finish_reason, one.answer_from) == ("", "thinking", 14 - k)
            assert one.thought is not None
            assert (one.thought.closed, one.thought.tokens) == (False, 14 - k)


async def test_caps_of_thought_and_answer_are_separate(thinker):
    cut = await sample(thinker, logits_processors=(begins_thought(),), max_tokens=3, thinking_tokens=10)
    assert (cut.finish_reason, cut.text, cut.answer_tokens) == ("thinking", "", 0)
    assert (len(cut.token_ids), cut.answer_from, cut.usage.thinking_tokens) == (10, 10, 10)
    assert cut.thought is not None
    assert not cut.thought.closed
    assert cut.answer_logprobs == ()
    processors = (begins_thought(), forces(thinker, "</think>Four", 5))
    answered = await sample(thinker, logits_processors=processors, max_tokens=3, thinking_tokens=10)
    assert (answered.finish_reason, answered.text, answered.answer_from) == ("length", "Fou", 6)
    unlimited = await sample(thinker, logits_processors=(begins_thought(),), max_tokens=950, ignore_eos=True)
    assert unlimited.finish_reason == "thinking"
    room = (thinker.capabilities.context_tokens or 0) - unlimited.usage.prompt_tokens - 950
    assert len(unlimited.token_ids) == room


async def test_a_thought_needs_room_in_the_context(thinker):
    size = thinker.count_tokens(ASK)
    context = thinker.capabilities.context_tokens or 0
    with pytest.raises(ContextTooLong, match="a thought, prompt"):
        await thinker.generate([request(max_tokens=context - size)])


async def test_a_text_that_ends_in_its_thought_has_no_answer(opened):
    end = opened._tokenizer.id_of("<|end|>")
    assert end is not None
    ends = LogitsProcessorSpec(name="force", args={"ids": [end], "after": 4})
    made = await sample(opened, logits_processors=(ends,))
    assert (made.finish_reason, made.stop_reason, made.text, made.answer_from) == ("thinking", None, "", 5)
    inside = await sample(opened, ASK.with_thought(Thought(closed=False)), logits_processors=(ends,))
    assert (inside.finish_reason, inside.stop_reason) == ("stop", "")
    assert inside.thought is not None
    assert not inside.thought.closed


async def test_stops_apply_to_the_answer_and_to_a_thought_of_the_prompt(opened):
    processors = (forces(opened, "a##b</think>\n\nc##d", 1),)
    made = await sample(opened, logits_processors=processors, max_tokens=40, stop=("##",))
    assert made.thought is not None
    assert made.thought.text.endswith("a##b")
    assert (made.text, made.finish_reason, made.stop_reason) == ("c", "stop", "##")
    chunks = []
    inside = request(
        ASK.with_thought(Thought(text="So", closed=False)), logits_processors=processors, max_tokens=40, stop=("##",)
    )
    [[step]] = await opened.generate([inside], chunks.append)
    assert step.thought is not None
    assert step.thought.text.endswith("a")
    assert (step.thought.closed, step.text, step.finish_reason, step.stop_reason) == (False, "", "stop", "##")
    assert len(step.token_ids) == step.answer_from == 4
    assert "".join(c.thought for c in chunks) == step.thought.text


async def test_without_an_effort_or_with_a_prefix_it_answers_at_once(thinker):
    quick = await sample(thinker, effort="none", max_tokens=5)
    assert (quick.thought, quick.answer_from, len(quick.token_ids)) == (None, 0, 5)
    raw = Prompt(text=f"{HEAD}<think>\n\n</think>\n\n")
    assert quick.token_ids == (await sample(thinker, raw, max_tokens=5)).token_ids
    after = await sample(thinker, ASK.with_prefix("Four"), max_tokens=5)
    assert after.token_ids == (await sample(thinker, raw.with_prefix("Four"), max_tokens=5)).token_ids
    [mine, theirs] = await thinker.next_token([ASK, raw], top=3)
    assert (mine.token_ids, mine.logprobs) == (theirs.token_ids, pytest.approx(theirs.logprobs, abs=1e-4))
    [scored], [plain] = await thinker.score(ASK, ["Four"]), await thinker.score(raw, ["Four"])
    assert (scored.token_ids, scored.logprobs) == (plain.token_ids, pytest.approx(plain.logprobs, abs=1e-4))
    [inside] = await thinker.next_token([ASK.with_thought(Thought(text="So", closed=False))], top=3)
    [there] = await thinker.next_token([Prompt(text=f"{HEAD}<think>So")], top=3)
    assert inside.token_ids == there.token_ids


async def test_a_thought_that_was_not_expected_is_no_answer(thinker):
    made = await sample(thinker, effort="none", logits_processors=(begins_thought(),), max_tokens=6)
    assert (made.finish_reason, made.text, made.usage.thinking_tokens) == ("thinking", "", 6)


async def test_special_tokens_are_tags_and_no_text(thinking_files, load):
    model = load(thinking_files(MAGISTRAL, tags=SPECIAL_TAGS, special=True))
    assert model._tokenizer.decode((THINK, 65, CLOSE)) == model._tokenizer.decode((65,))
    made = await sample(model, logits_processors=(forces(model, "so<|pad|>[/THINK]\n\nFour<|pad|>.", 1),), max_tokens=6)
    assert made.thought is not None
    assert (made.thought.text[-2:], made.thought.closed, made.text) == ("so", True, "Four.")
    assert model._tokenizer.token(made.token_ids[made.answer_from]) == "F"


async def test_harmonys_channels_are_thought_and_answer(thinking_files, load):
    model = load(thinking_files(HARMONY, tags=CHANNEL_TAGS, special=True))
    profile, head = model.capabilities.profile, model._tokenizer.render(ASK)
    assert (profile.thinks, profile.thought, head[-18:]) == ("always", "channel", "<|start|>assistant")
    assert "Reasoning: high" in model._tokenizer.render(ASK, "high")
    assert model._tokenizer.render(ASK, "none") == f"{head}<|channel|>final<|message|>"
    begin = LogitsProcessorSpec(name="steer", args={"ids": model._tokenizer.encode(" "), "weight": 1e6, "first": 1})
    text = "<|channel|>analysis<|message|>so<|start|>assistant<|channel|>final<|message|>Four"
    made = await sample(model, logits_processors=(begin, forces(model, text, 1)), max_tokens=4, thinking_tokens=90)
    assert made.thought is not None
    assert (made.thought.text, made.thought.closed, made.text) == ("so", True, "Four")
    inside = await sample(model, ASK.with_thought(Thought(text="so", closed=False)), thinking_tokens=3, ignore_eos=True)
    assert (inside.finish_reason, inside.text) == ("thinking", "")
    quick = await sample(model, effort="none", max_tokens=3, ignore_eos=True)
    assert (quick.thought, len(quick.token_ids)) == (None, 3)


async def test_raw_text_that_opens_a_thought_is_continued_inside_it(thinker):
    made = await sample(thinker, Prompt(text="Q: 2 + 2? <think>\n"), max_tokens=6)
    assert (made.finish_reason, made.text) == ("thinking", "")


async def test_tags_are_text_of_a_model_that_never_thinks(tiny):
    made = await sample(tiny, logits_processors=(forces(tiny, "<think>a</think>b", 1),), max_tokens=18)
    assert "<think>a</think>b" in made.text
    assert (made.thought, made.answer_from, made.usage.thinking_tokens) == (None, 0, 0)


async def test_a_short_answer_does_not_end_a_sample_before_its_thought(thinking_files, load):
    model = load(thinking_files(QWEN, tag_tokens=False))
    blank = LogitsProcessorSpec(name="steer", args={"ids": model._tokenizer.encode("\n"), "weight": 1e6, "first": 1})
    processors = (blank, forces(model, "<think>so</think>\n\nYes", 1))
    made = await sample(model, logits_processors=processors, max_tokens=1, thinking_tokens=40)
    assert made.thought is not None
    assert (made.thought.text, made.text, made.finish_reason) == ("so", "Y", "length")
    direct = await sample(model, logits_processors=(forces(model, "Yes", 1),), max_tokens=3, thinking_tokens=40)
    assert (direct.thought, direct.answer_from, len(direct.token_ids)) == (None, 0, 3)


# -- schemas, tools, processors, workers


@pytest.mark.parametrize(("template", "tag_tokens"), [(QWEN, False), (R1, True)])
async def test_a_schema_constrains_the_answer_only(thinking_files, load, template, tag_tokens):
    model = load(thinking_files(template, tag_tokens=tag_tokens))
    closes = (forces(model, "!</think>", 6),)
    for heat in (0.0, 1.0):
        made = await sample(model, temperature=heat, seed=4, json_schema=WORD, logits_processors=closes, max_tokens=30)
        assert json.loads(made.text) in ({"w": "yes"}, {"w": "no"})
        assert made.thought is not None
        assert made.thought.text.endswith("!")
        assert made.answer_from == made.usage.thinking_tokens >= 8
        assert made.finish_reason == "stop"
    quick = await sample(model, effort="none", json_schema=WORD, max_tokens=30)
    assert json.loads(quick.text) in ({"w": "yes"}, {"w": "no"})
    assert quick.thought is None
    cut = await sample(model, json_schema=WORD, max_tokens=30, thinking_tokens=8)
    assert (cut.finish_reason, cut.text) == ("thinking", "")


async def test_calls_are_read_from_the_answer_alone(opened):
    tools = (Tool(name="add"),)
    call = '<tool_call>{"name": "add", "arguments": {"a": %d}}</tool_call>'
    text = f"{call % 1}</think>\n\n{call % 2}<|end|>"
    prompt = ASK.model_copy(update={"tools": tools})
    made = await sample(opened, prompt, logits_processors=(forces(opened, text, 2),), max_tokens=80)
    assert [c.parsed_arguments for c in made.tool_calls] == [{"a": 2}]
    assert (made.text, made.finish_reason) == ("", "stop")
    assert made.thought is not None
    assert call % 1 in made.thought.text


async def test_workers_continue_inside_an_open_thought(opened):
    prompt = ASK.with_thought(Thought(text="So", closed=False))
    expected = await sample(opened, prompt, max_tokens=8, thinking_tokens=8, ignore_eos=True)
    config = WorkerGroupConfig(prompt=Prompt(text=f"{HEAD}<think>\nS"), num_workers=1, temperature=0.0)
    thinking = config.model_copy(update={"prompt": ASK.with_thought(Thought(text="S", closed=False))})
    assert (
        await _written(opened, thinking, "o", 8) == await _written(opened, config, "o", 8) == list(expected.token_ids)
    )


async def _written(model: LocalModel, config: WorkerGroupConfig, text: str, count: int) -> list[int]:
    group = await model.start_workers(config)
    ids: list[int] = []
    given: Sequence[WorkerInput | None] = (WorkerInput(text=text),)
    for _ in range(count):
        [token] = await group.advance(GroupStep(inputs=tuple(given)))
        assert token is not None
        ids.append(token.token)
        given = (WorkerInput(token=token.token),)
    await group.aclose()
    return ids


async def test_samples_are_independent_of_drafting(thinking_files, load):
    drafting = load(thinking_files(R1, tag_tokens=False), speculative_decoding="on")
    plain = load(thinking_files(R1, tag_tokens=False), speculative_decoding="off")
    closes = (forces(plain, " so so so so so so so so so so so</think>\n\nso so so so so so", 4),)
    for limits in ({"thinking_tokens": 25}, {"max_tokens": 9}, {"max_tokens": 40, "stop": ("o s",)}):
        mine, theirs = [await sample(m, logits_processors=closes, **limits) for m in (drafting, plain)]
        assert (mine.text, mine.thought, mine.finish_reason) == (theirs.text, theirs.thought, theirs.finish_reason)
        assert (mine.token_ids, mine.answer_from) == (theirs.token_ids, theirs.answer_from)
