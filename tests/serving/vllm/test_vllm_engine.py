"""Our logits processors inside vLLM's sampler (runner V1), and what the backend relies on: caches, steps, faults."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from reason.core.messages import LogitsProcessorSpec, Prompt
from reason.serving.local.tokenizer import Tokenizer, eos_ids
from reason.serving.model_files.find import ModelFiles
from reason.serving.vllm.options import KEY

QUESTIONS = ("Name a colour.", "What is two plus two?", "Tell me a story about a fox.", "Who are you?")


@pytest.fixture(scope="module")
def tokenizer(smollm2_files: ModelFiles) -> Tokenizer:
    return Tokenizer(smollm2_files.directory, smollm2_files.name)


@pytest.fixture(scope="module")
def prompts(tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer.prompt_ids(Prompt.user(q)) for q in QUESTIONS]


@pytest.fixture(scope="module")
def eos(smollm2_files: ModelFiles, tokenizer: Tokenizer) -> list[int]:
    return sorted(eos_ids(smollm2_files.directory, tokenizer))


def order(name: str, *hooks: LogitsProcessorSpec, eos: Sequence[int] = ()) -> dict[str, Any]:
    return {KEY: {"id": name, "logits_processors": [h.model_dump(mode="json") for h in hooks], "eos": list(eos)}}


def run(llm: Any, prompts: Sequence[Sequence[int]], params: Sequence[dict[str, Any]], salt: str | None = None) -> Any:
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    given = [TokensPrompt(prompt_token_ids=list(p), **({"cache_salt": salt} if salt else {})) for p in prompts]
    return llm.generate(given, [SamplingParams(detokenize=False, **p) for p in params], use_tqdm=False)


def reports(llm: Any, *ids: str) -> dict[str, Any]:
    [actual] = llm.collective_rpc("reason_take_reports", args=(list(ids),))
    return dict(actual)


def processor(llm: Any) -> Any:
    from reason.serving.vllm.logits_processor import ReasonLogitsProcessor

    runner = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
    [actual] = [p for p in runner.input_batch.logitsprocs.all if isinstance(p, ReasonLogitsProcessor)]
    return actual


def test_the_probe_measures_the_full_vocabulary(llm, prompts):
    # Different lengths: rows leave the batch and the others move.
    params = [
        {"temperature": 1.0, "seed": 5, "max_tokens": 3 + 3 * i, "ignore_eos": True, "logprobs": -1}
        | {"flat_logprobs": True, "extra_args": order(f"probe{i}", LogitsProcessorSpec(name="entropy_probe"))}
        for i in range(4)
    ]
    outputs = run(llm, prompts, params)
    actual = reports(llm, *(f"probe{i}" for i in range(4)))
    for i, output in enumerate(outputs):
        flat = output.outputs[0].logprobs
        exact = []
        for start, end in zip(flat.start_indices, flat.end_indices, strict=True):
            values = flat.logprobs[start + 1 : end]  # the first entry is the chosen token, which comes again
            exact.append(-math.fsum(math.exp(v) * v for v in values if v > -1e30))
        probe = actual[f"probe{i}"]["extras"]["entropy_probe"]
        assert probe["positions"] == list(range(3 + 3 * i))
        assert probe["entropy"] == pytest.approx(exact, abs=1e-3)
    assert reports(llm, "probe0") == {}  # read once


def test_steps_end_in_time_and_the_text_not_too_early(llm, prompts, eos):
    end = [198, 198]
    control = LogitsProcessorSpec(name="step_control", args={"max_tokens": 4, "end_ids": end, "min_steps": 3})
    params = [
        {"temperature": 1.0, "seed": i, "max_tokens": 40, "stop_token_ids": eos}
        | {"extra_args": order(f"steps{i}", control, eos=eos)}
        for i in range(4)
    ]
    for output in run(llm, prompts, params):
        ids = list(output.outputs[0].token_ids)
        steps, length = 0, 0
        for at, token in enumerate(ids):
            if token in eos:
                assert steps >= 3
            length += 1
            assert length <= 4 + len(end)
            if length >= 2 and ids[at - 1 : at + 1] == end:
                steps, length = steps + 1, 0
        assert steps >= 3


def test_requests_without_logits_processors_are_untouched(llm, prompts, monkeypatch):
    plain = {"temperature": 1.0, "seed": 11, "max_tokens": 12, "logprobs": 2}

    def values() -> list[Any]:
        llm.reset_prefix_cache()
        made = [o.outputs[0] for o in run(llm, prompts, [plain] * 4)]
        return [(list(c.token_ids), [{i: e.logprob for i, e in row.items()} for row in c.logprobs]) for c in made]

    with_processor = values()
    ours = processor(llm)
    monkeypatch.setattr(ours, "apply", lambda logits, ctx=None: logits)
    monkeypatch.setattr(ours, "update_state", lambda batch_update: None)
    assert with_processor == values()


def test_bad_orders_are_refused_before_they_run(llm, prompts):
    from vllm.exceptions import VLLMValidationError

    with pytest.raises(VLLMValidationError, match=KEY):
        run(llm, prompts[:1], [{"max_tokens": 1, "extra_args": {KEY: "{"}}])
    assert not llm.llm_engine.has_unfinished_requests()


@pytest.mark.xfail(strict=True, reason="vLLM's runner V1 spoils the other rows' alternatives (to 0.33)")
def test_label_ids_do_not_affect_other_rows(llm, prompts):
    plain = {"temperature": 0.0, "max_tokens": 1, "logprobs": 3}
    [single] = run(llm, prompts[:1], [plain])
    mixed, _ = run(llm, prompts[:2], [plain, {"temperature": 0.0, "max_tokens": 1, "logprob_token_ids": [1, 2]}])
    expected = {i: e.logprob for i, e in single.outputs[0].logprobs[0].items()}
    actual = {i: e.logprob for i, e in mixed.outputs[0].logprobs[0].items()}
    assert actual == pytest.approx(expected, abs=1e-3)
