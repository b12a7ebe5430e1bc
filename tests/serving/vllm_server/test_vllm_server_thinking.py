"""A real vLLM server with Qwen3's kind of template and its reasoning parser: where the tokens of thoughts go.

The weights are SmolLM2's, which has never seen a thought: what matters is that tokens are where they should be. Two
unused tokens of its vocabulary are the tags, and logits processors close thoughts.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from reason.core.messages import Completion, LogitsProcessorSpec, Prompt, Request, SamplingParams, Thought
from reason.core.settings import Settings
from reason.serving.litellm.factory import load_litellm_model
from reason.serving.model_files.find import ModelFiles
from reason.serving.servers.pages import detokenize
from reason.serving.structured_output import TRIAL_SCHEMA, TRIAL_TOKENS, is_trial
from support.thinking_templates import QWEN
from support.vllm_server import SERVED, RealServer, real_server

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real, pytest.mark.slow]

OPEN_ID, CLOSE_ID = 8, 9
"""SmolLM2's tokens `<issue_start>` and `<issue_comment>`, which are the tags here."""
ASK = Prompt.user("What is the capital of France?")


@pytest.fixture(scope="module")
def thinking_server(smollm2_files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    folder = tmp_path_factory.mktemp("thinks")
    for path in smollm2_files.directory.iterdir():
        if path.name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            text = path.read_text(encoding="utf-8")
            text = text.replace("<issue_start>", "<think>").replace("<issue_comment>", "</think>")
            value = json.loads(text)
            for token in value.get("added_tokens", []):
                token["special"] = token["special"] and token["id"] not in (OPEN_ID, CLOSE_ID)
            for number, token in value.get("added_tokens_decoder", {}).items():
                token["special"] = token["special"] and int(number) not in (OPEN_ID, CLOSE_ID)
            if "additional_special_tokens" in value:
                tags = ("<think>", "</think>")
                value["additional_special_tokens"] = [
                    t
                    for t in value["additional_special_tokens"]
                    if (t["content"] if isinstance(t, dict) else t) not in tags
                ]
            value.pop("chat_template", None)
            (folder / path.name).write_text(json.dumps(value), encoding="utf-8")
        elif not path.name.startswith("chat_template"):
            (folder / path.name).symlink_to(path)
    template = QWEN.replace("<|start|>", "<|im_start|>").replace("<|end|>", "<|im_end|>")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    log = tmp_path_factory.mktemp("vllm-thinks") / "log"
    with real_server(folder, log, "--reasoning-parser", "qwen3") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(thinking_server: RealServer) -> AsyncIterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOSTED_VLLM_API_KEY", thinking_server.key)
        settings = Settings(providers={"hosted_vllm": {"api_base": thinking_server.base}})
        loaded = await load_litellm_model(f"hosted_vllm/{SERVED}", settings)
        yield loaded
        await loaded.aclose()


async def one(model: Any, prompt: Prompt = ASK, **sampling: Any) -> Completion:
    fields = {"temperature": 0.0, "seed": 1, **sampling}
    [[made]] = await model.generate([Request(prompt=prompt, sampling=SamplingParams(**fields))])
    assert made.ok, made.failure
    return made


def closing_after(tokens: int) -> dict[str, Any]:
    """Logits processors that write the closing tag after some tokens."""
    steps = (("ids", tokens + 1), ("away_ids", tokens))  # in favor of it at one position only
    return {
        "logits_processors": tuple(
            LogitsProcessorSpec(name="steer", args={key: [CLOSE_ID], "weight": 1000.0, "first": first})
            for key, first in steps
        )
    }


async def test_template_tags_and_prefixes_are_measured(model):
    profile = model.capabilities.profile
    assert (profile.thinks, profile.prefix) == ("default", "thought")
    assert (profile.open_tag, profile.close_tag) == ("<think>\n", "\n</think>\n\n")
    assert profile.efforts["none"] == {"chat_template_kwargs": {"enable_thinking": False}}
    can = model.capabilities
    assert (can.prefix, can.scoring, can.seed, can.json_schema, can.logprobs) == (True,) * 5


async def test_the_parsers_field_is_the_thought_and_the_rest_the_answer(model):
    made = await one(model, max_tokens=6, thinking_tokens=40, logprobs=True, ignore_eos=True, **closing_after(5))
    assert made.thought is not None
    assert made.token_ids[5] == CLOSE_ID
    assert made.thought.closed
    assert made.usage.thinking_tokens == made.thought.tokens == 5  # the server's count, without the tag
    assert made.answer_from >= 6
    assert made.usage.completion_tokens == len(made.token_ids) == len(made.logprobs or ())
    client = model.wire.client
    assert (await detokenize(client, SERVED, made.token_ids[:5])).strip() == made.thought.text.strip()
    assert (await detokenize(client, SERVED, made.token_ids[made.answer_from :])).startswith(made.text[:4])
    assert "</think>" not in made.text


async def test_a_thought_is_cut_at_its_cap(model, thinking_server):
    opening = ASK.with_thought(Thought(text="The country is", closed=False))
    made = await one(model, opening, thinking_tokens=4, max_tokens=64)
    assert (made.finish_reason, made.text, len(made.token_ids)) == ("thinking", "", 4)
    assert made.thought is not None
    assert not made.thought.closed


async def test_a_thought_is_continued_exactly(model):
    opening = ASK.with_thought(Thought(text="The country is", closed=False))
    whole = await one(model, opening, thinking_tokens=12, max_tokens=16, logprobs=True)
    before = await model.ids_of(opening, SamplingParams())
    tail = await detokenize(model.wire.client, SERVED, before[-12:])
    assert tail.endswith("<|im_start|>assistant\n<think>The country is")
    given = (*before[-3:], *whole.token_ids[:5])
    # the same tokens, of which five are given now
    head = tuple(before[before.index(OPEN_ID) + 1 :])
    rest = await one(
        model,
        ASK.with_thought(Thought(token_ids=(*head, *whole.token_ids[:5]), closed=False)),
        thinking_tokens=7,
        max_tokens=16,
        logprobs=True,
    )
    assert given[-5:] == whole.token_ids[:5]
    assert rest.token_ids == whole.token_ids[5:12]
    assert rest.logprobs == pytest.approx((whole.logprobs or ())[5:12], abs=1e-3)


async def test_log_probabilities_of_the_answer_equal_its_score(model):
    prompt = ASK.with_thought(Thought(text="The country is France."), "The capital is")
    made = await one(model, prompt, max_tokens=6, logprobs=True)
    assert (made.answer_from, made.thought) == (0, None)
    [scored] = await model.score(prompt, [made.token_ids])
    assert made.answer_logprobs == pytest.approx(scored.logprobs, abs=1e-3)
    plain = await model.score(ASK.with_prefix("The capital is"), [made.token_ids])
    assert plain[0].logprobs != pytest.approx(scored.logprobs, abs=1e-3)  # the thought counts


async def test_without_a_thought_chat_and_tokens_are_the_same_prompt(model):
    chat = await one(model, effort="none", max_tokens=6, logprobs=True)
    tokens = await one(model, ASK.with_thought(Thought()), max_tokens=6, logprobs=True)
    assert chat.thought is tokens.thought is None
    assert chat.usage.prompt_tokens == tokens.usage.prompt_tokens
    assert chat.text == tokens.text
    rendered = await detokenize(model.wire.client, SERVED, await model.ids_of(ASK, SamplingParams(effort="none")))
    assert rendered.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


async def test_schema_and_stop_strings_apply_to_the_answer(model):
    made = await one(model, effort="none", max_tokens=TRIAL_TOKENS, json_schema=TRIAL_SCHEMA)
    assert is_trial(made.text)
    free = await one(model, max_tokens=12, thinking_tokens=40, ignore_eos=True, **closing_after(5))
    stop = free.text[2:4]
    cut = await one(model, max_tokens=12, thinking_tokens=40, stop=(stop,), ignore_eos=True, **closing_after(5))
    assert (cut.text, cut.stop_reason) == (free.text[: free.text.index(stop)], stop)
    assert cut.thought is not None
    assert free.thought is not None
    assert cut.thought.text == free.thought.text
