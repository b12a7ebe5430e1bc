"""The engine on a device that is not the CPU: everything it does, against the same on the CPU.

The device is a GPU if there is one, and a simulated one, on which the CPU's tensors cannot be mixed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from reason.core.messages import Completion, LogitsProcessorSpec, Message, Prompt, Request, SamplingParams
from reason.serving.local.engine import LocalModel, _load_model
from reason.serving.local.scheduler import Scheduler
from reason.serving.local.tokenizer import Tokenizer, eos_ids
from reason.serving.model_files.find import ModelFiles
from reason.serving.worker_group import GroupStep, WorkerGroupConfig, WorkerInput
from support.fake_device import PRETENDED, pretending

Files = Callable[[str], ModelFiles]
Open = Callable[..., LocalModel]
KV_BYTES = 64 << 20
TEXTS = ["a", "The quick brown fox", "x" * 90, "b" * 300]
NEAR = 2e-4


@pytest.fixture(params=["pretended", "cuda"])
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens an engine on the device."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("this machine has no GPU")

        def load(files: ModelFiles, **settings: Any) -> LocalModel:
            usual = {"weight_format": "fp32", "threads": 1, "kv_cache_bytes": KV_BYTES}
            return LocalModel.load(files, device="cuda", **(usual | settings))

        yield load
        return
    step = Scheduler.step

    def pretended_step(self: Scheduler) -> Any:
        with pretending():
            return step(self)

    monkeypatch.setattr(Scheduler, "step", pretended_step)

    def build(files: ModelFiles, **settings: Any) -> LocalModel:
        tokenizer = Tokenizer(files.directory, files.name)
        usual = {
            "weight_format": "fp32",
            "threads": 1,
            "kv_cache_bytes": KV_BYTES,
            "max_num_seqs": 16,
            "checkpoint": files.directory,
        }
        given = usual | settings
        with pretending():
            forward = _load_model(files, given["weight_format"], PRETENDED)
            return LocalModel(
                files.name, files.fingerprint, forward, tokenizer, eos_ids(files.directory, tokenizer), **given
            )

    yield build


def here(files: ModelFiles, **settings: Any) -> LocalModel:
    """The same on the CPU."""
    usual = {"weight_format": "fp32", "threads": 1, "kv_cache_bytes": KV_BYTES}
    return LocalModel.load(files, **(usual | settings))


def ask(text: str, **sampling: Any) -> Request:
    usual = {"max_tokens": 12, "seed": 1, "ignore_eos": True, "logprobs": True}
    return Request(prompt=Prompt(text=text), sampling=SamplingParams(**(usual | sampling)))


def same(mine: list[list[Completion]], theirs: list[list[Completion]]) -> None:
    """The same tokens, with log-probabilities as near as another order of summation leaves them."""
    for a, b in zip((c for r in mine for c in r), (c for r in theirs for c in r), strict=True):
        assert a.failure is None
        assert a.token_ids == b.token_ids
        assert a.logprobs == pytest.approx(b.logprobs, abs=NEAR)
        assert a.extras.keys() == b.extras.keys()


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "yarn", "gemma3", "gpt_neox", "gemma"])
async def test_it_writes_and_measures_what_it_does_on_the_cpu(tiny_files: Files, elsewhere: Open, family: str) -> None:
    files = tiny_files(family)
    there, mine = elsewhere(files), here(files)
    try:
        assert there.identity == f"{mine.identity}+{there.device.type}"
        hooks = (
            LogitsProcessorSpec(name="forbid_tokens", args={"ids": [5]}),
            LogitsProcessorSpec(name="entropy_probe"),
        )
        requests = [
            *(ask(t, n=3, temperature=1.3, max_tokens=5 + 3 * i) for i, t in enumerate(TEXTS)),
            ask(TEXTS[1], temperature=0, top_logprobs=4),
            ask(TEXTS[2], temperature=0.8, top_p=0.9, top_k=40, logits_processors=hooks),
        ]
        reported, expected = await there.generate(requests), await mine.generate(requests)
        same(reported, expected)
        for (a,), (b,) in zip(reported[-2:], expected[-2:], strict=True):
            assert a.top_logprobs is None or [t.token_id for p in a.top_logprobs for t in p] == [
                t.token_id for p in b.top_logprobs or () for t in p
            ]
        prompt = Prompt(text=TEXTS[1])
        scored = [await m.score(prompt, ["", " jumps", " over the lazy dog"]) for m in (there, mine)]
        for a, b in zip(*scored, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=NEAR)
            assert a.is_greedy == b.is_greedy
        nexts = [await m.next_token([prompt, Prompt(text="zz")], top=5) for m in (there, mine)]
        for a, b in zip(*nexts, strict=True):
            assert a.token_ids == b.token_ids
            assert a.entropy == pytest.approx(b.entropy, abs=NEAR)
    finally:
        await there.aclose()
        await mine.aclose()


async def test_a_full_cache_is_evicted_as_on_the_cpu(tiny_files: Files, elsewhere: Open) -> None:
    files = tiny_files("llama")
    room = 400 * 768
    there, mine = elsewhere(files, kv_cache_bytes=room), here(files)
    try:
        for call in range(2):
            requests = [ask(f"{'ab' * 40}{i}{call}", n=3, temperature=1.0, max_tokens=25) for i in range(3)]
            same(await there.generate(requests), await mine.generate(requests))
            assert there.cache_bytes <= room
    finally:
        await there.aclose()
        await mine.aclose()


@pytest.mark.parametrize(
    ("layout", "family"),
    [("combined", "llama"), ("interleaved", "yarn"), ("contiguous", "qwen3"), ("combined", "gemma3")],
)
async def test_workers_write_what_they_do_on_the_cpu(
    tiny_files: Files, elsewhere: Open, layout: Any, family: str
) -> None:
    files = tiny_files(family)
    opening = WorkerGroupConfig(
        prompt=Prompt(text="The quick brown fox. " * 15),
        num_workers=3,
        layout=layout,
        others_header="others: ",
        own_header="mine: ",
        seed=5,
        banned_texts=("q",),
    )

    async def written(model: LocalModel) -> list[Any]:
        group = await model.start_workers(opening)
        reported: list[Any] = []
        feeds: tuple[WorkerInput | None, ...] = (
            WorkerInput(text="one"),
            WorkerInput(text="two and"),
            WorkerInput(text="three"),
        )
        for number in range(8):
            moves = (1, 0) if number == 5 and layout != "contiguous" else ()
            sampled = await group.advance(GroupStep(inputs=feeds, moves=moves))
            reported += [d for d in sampled if d is not None]
            feeds = tuple(None if number == 2 and w == 1 else WorkerInput(token=7 * number + w + 3) for w in range(3))
        await group.aclose()
        return reported

    there, mine = elsewhere(files), here(files)
    try:
        reported, expected = await written(there), await written(mine)
        assert [d.token for d in reported] == [d.token for d in expected]
        assert [d.logprob for d in reported] == pytest.approx([d.logprob for d in expected], abs=NEAR)
    finally:
        await there.aclose()
        await mine.aclose()


async def test_relevance_is_the_one_of_the_cpu(tiny_files: Files, elsewhere: Open) -> None:
    files = tiny_files("qwen2")
    parts = ["Bees live here.", "Boats float.", "What floats?"]
    prompt = Prompt(messages=(Message(role="user", content="\n".join(parts)),))
    there, mine = elsewhere(files), here(files)
    try:
        actual, expected = [await m.relevance(prompt, parts, "Boats float.") for m in (there, mine)]
        for name in ("relevance", "gradient", "attention"):
            assert getattr(actual, name) == pytest.approx(getattr(expected, name), rel=1e-3, abs=1e-3)
        assert actual.logprob == pytest.approx(expected.logprob, abs=NEAR)
    finally:
        await there.aclose()
        await mine.aclose()
