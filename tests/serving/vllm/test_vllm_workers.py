"""Workers on one cache inside vLLM: what they compute, compared with views built for each; their group's life cycle."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import pytest_asyncio
from reason.core.errors import BackendError, BackendUnavailable
from reason.core.messages import Prompt, Request, SamplingParams
from reason.core.settings import VllmSettings
from reason.serving.model_files.find import ModelFiles
from reason.serving.worker_group import (
    GroupStep,
    SupportsWorkers,
    WorkerGroup,
    WorkerGroupConfig,
    WorkerInput,
    WorkerToken,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
pytest.importorskip("torch", reason="the extra [local] is not installed")

KV_BYTES = 1 << 20
"""Some 1,300 tokens of the tiny models: little enough to be filled by a test."""
CONTEXT = 512
PROMPT = "A fact about the sea: it is deep, and nobody has seen all of it."
OTHERS, OWN = "\n[others]\n", "\n[mine]\n"


async def started(files: ModelFiles, **engine: Any) -> Any:
    from reason.serving.vllm.model import VllmModel

    settings = VllmSettings(
        shared_workers=True,
        engine={
            "max_model_len": CONTEXT,
            "kv_cache_memory_bytes": KV_BYTES,
            "dtype": "float32",
            "max_num_seqs": 16,
            **engine,
        },
    )
    model = await asyncio.to_thread(VllmModel.load, "vllm/tiny", files, settings)
    await model.check_logits_processors()
    return model


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(make_tiny_vllm: Callable[..., ModelFiles]) -> AsyncIterator[Any]:
    """A tiny Llama, with its weights' directory as `files`."""
    files = make_tiny_vllm("llama", vocab_size=259, initializer_range=0.15)
    engine = await started(files)
    engine.files = files
    yield engine
    await engine.aclose()


def opening(**settings: Any) -> WorkerGroupConfig:
    usual: dict[str, Any] = {"prompt": Prompt(text=PROMPT), "own_header": OWN, "temperature": 0, "num_workers": 2}
    usual |= {"layout": "contiguous"} if "layout" not in settings else {}
    return WorkerGroupConfig(**(usual | settings))


class Mirror:
    """The same workers on the reference."""

    def __init__(self, files: ModelFiles, begun: WorkerGroupConfig) -> None:
        from reason.serving.local.tokenizer import Tokenizer
        from support.shared_cache_reference import Reference

        self.reference, self.tokenizer = Reference(files.directory), Tokenizer(files.directory, "tiny")
        self.layout, self.workers = begun.layout, begun.num_workers
        self.blocks = {"history": self.reference.block()}
        self.reference.run([([self.blocks["history"]], self.tokenizer.prompt_ids(begun.prompt))])
        for name, text in (("others", begun.others_header), ("own", begun.own_header)):
            if text:
                self.blocks[name] = self.reference.block()
                self.reference.run([([self.blocks[name]], self.tokenizer.encode(text))])
        self.steps = [self.reference.block() for _ in range(begun.num_workers)]

    def run(self, step: GroupStep) -> list[Any]:
        """Log-probabilities of what each worker may sample; None for an idle one."""
        for worker in step.moves:
            self.blocks["history"].absorb(self.steps[worker])
        feeds, reading = [], []
        for worker, fed in enumerate(step.inputs):
            if fed is None:
                continue
            ids = ([] if fed.token is None else [fed.token]) + (self.tokenizer.encode(fed.text) if fed.text else [])
            rest = [b for w, b in enumerate(self.steps) if w != worker]
            shown = [] if self.layout == "interleaved" else [self.blocks.get("others"), *rest, self.blocks.get("own")]
            feeds.append(([self.blocks["history"], *(b for b in shown if b is not None), self.steps[worker]], ids))
            reading.append(worker)
        logits = self.reference.run(feeds)
        reported: list[Any] = [None] * self.workers
        for worker, rows in zip(reading, logits, strict=True):
            reported[worker] = rows[-1].log_softmax(-1)
        return reported


async def follow(model: SupportsWorkers, files: ModelFiles, begun: WorkerGroupConfig, passes: int) -> None:
    """Lead workers through passes with moves, pauses and injected texts, and compare every one with the reference."""
    import torch

    chance = random.Random(begun.num_workers)
    group = await model.start_workers(begun)
    try:
        with torch.inference_mode():
            mirror = Mirror(files, begun)
            feeds: list[WorkerInput | None] = [
                WorkerInput(text=chance.choice(["Well, ", "So: ", "The "])) for _ in range(begun.num_workers)
            ]
            moves: tuple[int, ...] = ()
            for number in range(passes):
                step = GroupStep(inputs=tuple(feeds), moves=moves)
                compare(await group.advance(step), mirror.run(step))
                # Not what was sampled: a random model soon repeats itself.
                feeds = [WorkerInput(token=chance.randrange(3, 250)) for _ in feeds]
                moves = ()
                if number % 7 == 6 and begun.layout != "contiguous":
                    moves = tuple(chance.sample(range(begun.num_workers), 2))
                    feeds[moves[0]] = WorkerInput(token=chance.randrange(3, 250), text="\n\nnext step")
                if number % 5 == 4 and begun.num_workers > 2:
                    feeds[chance.randrange(begun.num_workers)] = None
    finally:
        await group.aclose()
    assert (group.counts.shared, group.counts.skipped) == (passes, 0)


def compare(sampled: Sequence[WorkerToken | None], expected: Sequence[Any]) -> None:
    """A worker that reads samples the most probable token of the reference, with its log-probability."""
    for mine, theirs in zip(sampled, expected, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert mine.logprob == pytest.approx(float(theirs[mine.token]), abs=1e-4)
            assert float(theirs.max()) == pytest.approx(float(theirs[mine.token]), abs=1e-4)


@pytest.mark.parametrize(
    ("layout", "workers"), [("contiguous", 2), ("contiguous", 8), ("interleaved", 2), ("combined", 3)]
)
async def test_thirty_passes_are_those_of_views_put_together_anew(model, layout, workers):
    headers = {"combined": {"others_header": OTHERS, "own_header": OWN}, "interleaved": {"own_header": ""}}.get(
        layout, {"own_header": OWN}
    )
    await follow(model, model.files, opening(layout=layout, num_workers=workers, **headers), 30)


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("qwen2", {}),
        ("qwen3", {"head_dim": 32, "rope_parameters": LLAMA3}),
    ],
    ids=["qwen2", "qwen3-llama3"],
)
async def test_other_families_are_shared_alike_also_in_a_worker_process_of_their_own(make_tiny_vllm, family, more):
    files = make_tiny_vllm(family, **more)
    apart = {"distributed_executor_backend": "mp"} if family == "qwen2" else {}
    model = await started(files, **apart)
    try:
        await follow(model, files, opening(layout="combined", others_header=OTHERS, num_workers=3), 30)
    finally:
        await model.aclose()


async def test_one_worker_alone_is_a_plain_sample(model):
    plain = Request(
        prompt=Prompt(text=PROMPT + "Well"),
        sampling=SamplingParams(max_tokens=20, temperature=0, ignore_eos=True, logprobs=True),
    )
    [[expected]] = await model.generate([plain])
    group = await model.start_workers(opening(num_workers=1))
    ids, logprobs = await written(group, ["Well"], 20)
    await group.aclose()
    assert ids[0] == list(expected.token_ids)
    assert logprobs[0] == pytest.approx(list(expected.logprobs), abs=1e-4)


async def written(group: WorkerGroup, first: list[str], passes: int) -> tuple[list[list[int]], list[list[float]]]:
    """Tokens and log-probabilities of workers that continue with what they sample."""
    feeds = tuple(WorkerInput(text=text) for text in first)
    reported: list[list[WorkerToken]] = [[] for _ in first]
    for _ in range(passes):
        sampled = await group.advance(GroupStep(inputs=feeds))
        for worker, token in enumerate(sampled):
            assert token is not None
            reported[worker].append(token)
        feeds = tuple(WorkerInput(token=d.token) for d in sampled if d)
    return [[d.token for d in w] for w in reported], [[d.logprob for d in w] for w in reported]


async def test_whoever_comes_first_in_the_batch_changes_nothing(model):
    """Workers that see the same sample the same; where texts are swapped, so are the samples."""
    said = []
    for texts in (["one two", "three"], ["three", "one two"]):
        group = await model.start_workers(opening(layout="interleaved", own_header=""))
        said.append(await written(group, texts, 8))
        await group.aclose()
    assert said[0][0] == said[1][0][::-1]
    for mine, theirs in zip(said[0][1], said[1][1][::-1], strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)


async def test_a_group_next_to_plain_requests_changes_neither(model):
    requests = [
        Request(
            prompt=Prompt(text=f"{PROMPT} {i}"), sampling=SamplingParams(max_tokens=40, temperature=0, ignore_eos=True)
        )
        for i in range(4)
    ]
    single = await model.generate(requests)

    async def single_group() -> Any:
        group = await model.start_workers(opening(num_workers=3))
        reported = await written(group, ["a", "b", "c"], 12)
        await group.aclose()
        return reported

    expected = await single_group()
    neighbour = await asyncio.gather(model.generate(requests), single_group(), single_group())
    assert [c[0].token_ids for c in neighbour[0]] == [c[0].token_ids for c in single]
    for reported in neighbour[1:]:
        assert reported[0] == expected[0]
        for mine, theirs in zip(reported[1], expected[1], strict=True):
            assert mine == pytest.approx(theirs, abs=1e-4)


async def test_what_workers_wrote_is_not_in_the_cache_of_others(model):
    """Blocks are matched only by their tokens, but those of workers depend on what they saw of one another."""
    group = await model.start_workers(opening())
    ids, _ = await written(group, ["first", "second"], 48)
    await group.aclose()
    text = model._tokenizer.encode("first")
    prompt = Prompt(text=PROMPT, prefix=(*text, *ids[0]))
    [after] = await model.score(prompt, ["."])
    plain = await model.score(Prompt(text=PROMPT), [(*text, *ids[0], *model._tokenizer.encode("."))])
    assert after.logprobs == pytest.approx(plain[0].logprobs[-1:], abs=1e-4)


async def test_seeds_determine_and_banned_texts_are_not_sampled(model):
    async def draws(seed: int, banned: tuple[str, ...] = ()) -> list[list[int]]:
        group = await model.start_workers(opening(temperature=1.0, seed=seed, banned_texts=banned))
        reported, _ = await written(group, ["a", "b"], 16)
        await group.aclose()
        return reported

    once = await draws(3)
    assert once == await draws(3)
    assert once != await draws(4)
    maximum = [model._tokenizer.token(i) for i in set(once[0] + once[1])]
    kept = await draws(3, tuple(text for text in maximum if text.strip()))
    assert not any(any(text in model._tokenizer.token(i) for text in maximum if text.strip()) for w in kept for i in w)


# --- The life of a group


async def test_a_group_that_ends_leaves_nothing(model):
    group = await model.start_workers(opening())
    await written(group, ["a", "b"], 3)
    assert model.num_running == 2
    await group.aclose()
    await group.aclose()
    assert model.num_running == 0
    assert [
        list(reported) for reported in await model.engine.collective_rpc("reason_close_workers", args=(group._name,))
    ] == [[0, 0]]
    with pytest.raises(BackendUnavailable, match="closed"):
        await group.advance(GroupStep(inputs=(WorkerInput(text="a"), WorkerInput(text="b"))))


async def test_a_pass_that_is_cancelled_ends_the_group_and_the_engine_goes_on(model):
    group = await model.start_workers(opening())
    task = asyncio.ensure_future(
        group.advance(GroupStep(inputs=(WorkerInput(text="a " * 60), WorkerInput(text="b " * 60))))
    )
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.num_running == 0
    fresh = await model.start_workers(opening())
    assert [
        d is not None for d in await fresh.advance(GroupStep(inputs=(WorkerInput(text="a"), WorkerInput(text="b"))))
    ] == [
        True,
        True,
    ]
    await fresh.aclose()


async def test_a_full_cache_ends_its_group_with_an_error(model):
    group = await model.start_workers(opening(num_workers=8, layout="interleaved", own_header=""))
    with pytest.raises(BackendError, match="no room"):
        for _ in range(4):
            await group.advance(GroupStep(inputs=(WorkerInput(text="x" * 60),) * 8))
    assert model.num_running == 0
    again = await model.start_workers(opening())
    await again.advance(GroupStep(inputs=(WorkerInput(text="a"), WorkerInput(text="b"))))
    await again.aclose()
    assert (again.counts.shared, again.counts.skipped) == (1, 0)
