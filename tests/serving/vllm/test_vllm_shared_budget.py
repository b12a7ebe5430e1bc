"""Memory of workers outside vLLM's cache: counted, limited, released."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reason.core.messages import Prompt
from reason.core.settings import VllmSettings
from reason.serving.worker_group import ViewLengths, WorkerGroupConfig

torch = pytest.importorskip("torch", reason="the extra [local] is not installed")

from reason.serving.local.config import ModelConfig  # noqa: E402
from reason.serving.local.prefix_cache import OutOfCache  # noqa: E402
from reason.serving.vllm.shared_cache import (  # noqa: E402
    GroupCaches,
    WorkerRequest,
    WorkerRow,
)
from reason.serving.vllm.worker_group import (  # noqa: E402  # noqa: E402
    BatchSlots,
    GroupSize,
    SharedCacheBudget,
    VllmWorkerGroup,
    WorkerGroupHost,
    slot_bytes,
)

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 50,
    "max_position_embeddings": 4096,
}
ENGINE = SimpleNamespace(
    model_config=SimpleNamespace(
        get_total_num_hidden_layers=lambda: 2,
        get_num_kv_heads=lambda parallel: 2,
        get_head_size=lambda: 8,
        dtype=torch.float32,
    ),
    parallel_config=SimpleNamespace(pipeline_parallel_size=1),
)
SLOT_BYTES = 2 * 2 * 2 * 8 * 4


def test_a_column_is_that_of_the_largest_stage() -> None:
    assert slot_bytes(ENGINE) == SLOT_BYTES
    stages = SimpleNamespace(
        model_config=SimpleNamespace(**(vars(ENGINE.model_config) | {"get_total_num_hidden_layers": lambda: 7})),
        parallel_config=SimpleNamespace(pipeline_parallel_size=3),
    )
    assert slot_bytes(stages) == 3 * SLOT_BYTES // 2


@settings(max_examples=25)
@given(st.data())
def test_counted_bytes_are_those_of_the_engines_process(data: st.DataObject) -> None:
    workers = data.draw(st.integers(1, 3))
    prompt, others, own = data.draw(st.tuples(st.integers(1, 200), st.integers(0, 90), st.integers(0, 70)))
    groups = GroupCaches(ModelConfig.from_dict(CONFIG, "the test's"), ("a", "b"), torch.float32, torch.device("cpu"))
    size = GroupSize.of(prompt, others, own, workers)

    def part(kind: Any, worker: int, turn: int = 0, **more: Any) -> WorkerRequest:
        return WorkerRequest(
            group="g",
            kind=kind,
            num_workers=workers,
            layout="combined",
            worker=worker,
            pass_number=turn,
            sizes=(prompt, others, own),
            **more,
        )

    for kind, count in (("others", others), ("own", own), ("prompt", prompt)):
        if count:  # in two pieces, which must not make it grow twice
            for first, last in ((0, count // 2), (count // 2, count)):
                groups.step([WorkerRow(part(kind, 0), 0, last - first, first)], last - first)
    assert groups.nbytes == size.slots * SLOT_BYTES
    native = [prompt] * workers
    for turn in range(1, data.draw(st.integers(1, 8))):
        read = data.draw(st.lists(st.integers(0, 150), min_size=workers, max_size=workers).filter(any))
        moves = tuple(data.draw(st.permutations(range(workers)))[: data.draw(st.integers(0, workers))])
        reading = tuple(w for w, count in enumerate(read) if count)
        rows, first = [], 0
        for w in reading:
            rows.append(WorkerRow(part("pass", w, turn, active=reading, moves=moves), first, read[w], native[w]))
            first += read[w]
            native[w] += read[w]
        assert groups.step(rows, first).attention is not None
        size = size.after(read, moves)
        assert groups.nbytes == size.slots * SLOT_BYTES
    groups.close("g")
    assert groups.nbytes == 0


def test_too_much_is_refused_with_a_hint() -> None:
    budget = SharedCacheBudget(1000 * SLOT_BYTES, SLOT_BYTES)
    budget.acquire(900)
    with pytest.raises(OutOfCache, match=f"{1001 * SLOT_BYTES:,}") as caught:
        budget.acquire(101)
    assert "vllm.shared_bytes" in caught.value.hint
    budget.acquire(100)
    budget.release(1000)
    assert budget.nbytes == 0


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_memory_comes_back_where_closing_is_broken_off(how: str) -> None:
    forgotten: list[Any] = []
    begun = asyncio.Event()

    class Engine:
        async def collective_rpc(self, name: str, args: Any) -> Any:
            forgotten.append((name, args))
            return [(0, 0)]

    class Stuck:
        async def aclose(self) -> None:
            if how == "failed":
                raise RuntimeError("the engine is gone")
            begun.set()
            await asyncio.Event().wait()

    async def run(work: Any) -> Any:
        return [await each for each in work]

    engine, budget, slots = Engine(), SharedCacheBudget(1000 * SLOT_BYTES, SLOT_BYTES), BatchSlots(3)
    given: Any = (
        lambda: engine,
        run,
        SimpleNamespace(tokens_containing=lambda *_: ()),
        frozenset(),
        SimpleNamespace(vocab_size=50),
    )
    opening = WorkerGroupConfig(prompt=Prompt(text="p"), num_workers=2, layout="contiguous")
    group = VllmWorkerGroup(
        opening,
        ViewLengths("contiguous", 9, 0, (0, 0)),
        GroupSize.of(9, 0, 0, 2),
        WorkerGroupHost(*given, slots, budget),
    )
    await slots.acquire(2)
    group._reserve(group._size)
    assert budget.nbytes == 5 * 64 * SLOT_BYTES
    group._sessions[0]._outputs = Stuck()
    closing = asyncio.ensure_future(group.aclose())
    if how == "cancelled":
        await begun.wait()
        closing.cancel()
    with pytest.raises(RuntimeError if how == "failed" else asyncio.CancelledError):
        await closing
    assert budget.nbytes == 0
    assert [name for name, _ in forgotten] == ["reason_close_workers"]
    await asyncio.wait_for(slots.acquire(2), 60)


def test_the_bound_is_a_setting() -> None:
    assert VllmSettings().shared_bytes == 1 << 30
    with pytest.raises(ValidationError):
        VllmSettings(shared_bytes=1000)
