"""Parts of workers on one cache in vLLM that do not need vLLM: blocks of a process, passes, batch slots."""

from __future__ import annotations

import asyncio
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import ContextTooLong, UserError
from reason.core.messages import Prompt
from reason.core.settings import VllmSettings
from reason.serving.vllm.shared_cache import (
    KEY,
    ROW_TRACKER,
    RUNNER_V2,
    SCHEDULER,
    PassGate,
    WorkerRequest,
    shared_cache_arguments,
)
from reason.serving.vllm.worker_group import BatchSlots
from reason.serving.worker_group import GroupStep, ViewLengths, WorkerGroupConfig, WorkerInput, header_ids, input_ids

torch = pytest.importorskip("torch", reason="the extra [local] is not installed")

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 50,
    "max_position_embeddings": 512,
    "rope_theta": 100.0,
}
HEADS, KV_HEADS, WIDTH = 4, 2, 8
LAYERS = ("first", "second")


# --- Requests


def part(**settings: Any) -> WorkerRequest:
    usual: dict[str, Any] = {"group": "g", "kind": "pass", "num_workers": 2, "layout": "combined", "pass_number": 1}
    return WorkerRequest(**(usual | {"active": (0, 1)} | settings))


def test_a_part_is_read_as_it_was_written():
    one = part(worker=1, moves=(1, 0))
    assert WorkerRequest.from_arguments(json.loads(json.dumps(one.arguments()))) == one
    assert WorkerRequest.from_arguments(None) is None
    assert WorkerRequest.from_arguments({"other": 1}) is None
    with pytest.raises(ValueError, match=rf"{KEY}.*kind"):
        WorkerRequest.from_arguments({KEY: one.model_dump() | {"kind": "bench"}})


# --- Blocks


class Workers:
    """A group in a process of vLLM's, one layer, and all that workers read, not rotated, for one softmax."""

    def __init__(self, layout: str, workers: int, **config: Any) -> None:
        from reason.serving.local.config import ModelConfig
        from reason.serving.local.rope import RotaryEmbedding
        from reason.serving.vllm.shared_cache import GroupCaches

        self.shape = ModelConfig.from_dict(CONFIG | config, "the test's configuration")
        self.groups = GroupCaches(self.shape, LAYERS, torch.float64, torch.device("cpu"))
        self.rotary = RotaryEmbedding(self.shape, torch.float64)
        self.layout, self.workers = layout, workers
        self.raw: dict[str, list[Any]] = {"prompt": [], "others": [], "own": []}
        self.steps: list[list[Any]] = [[] for _ in range(workers)]
        self.native = [0] * workers
        self.draw = torch.Generator().manual_seed(workers)

    def numbers(self, rows: int) -> tuple[Any, Any, Any]:
        return tuple(
            torch.randn(rows, heads, WIDTH, generator=self.draw, dtype=torch.float64)
            for heads in (HEADS, KV_HEADS, KV_HEADS)
        )

    def turned(self, x: Any, positions: list[int]) -> Any:
        cos, sin = self.rotary.cos_sin(torch.tensor(positions).double())  # with a model's factor, as vLLM turns them
        return self.rotary.rotate(x, (cos[:, None], sin[:, None]))

    def read(self, kind: str, count: int) -> None:
        """A prompt, by all workers; or a header."""
        from reason.serving.vllm.shared_cache import WorkerRow

        _, key, value = self.numbers(count)
        self.raw[kind] = list(zip(key, value, strict=True))
        self.native = [count] * self.workers if kind == "prompt" else self.native
        for worker in range(self.workers if kind == "prompt" else 1):
            row = WorkerRow(
                part(kind=kind, num_workers=self.workers, layout=self.layout, worker=worker, pass_number=0), 3, count, 0
            )
            step = self.groups.step([row], 3 + count)
            padded = [torch.cat([x.new_zeros(3, *x.shape[1:]), x]) for x in (key, value)]
            query = padded[0].new_zeros(3 + count, HEADS, WIDTH)
            step.attend("second", query, self.turned(padded[0], [0] * 3 + list(range(count))), padded[1], query)
            assert not step.is_exclusive

    def run(self, counts: dict[int, int], turn: int, moves: tuple[int, ...] = (), missing: bool = False) -> Any:
        """A pass: its outputs, and those of one softmax over each worker's complete view."""
        from reason.serving.vllm.shared_cache import WorkerRow

        rows, first, new = [], 2, {}
        for worker, count in sorted(counts.items(), reverse=True):  # in another order than the workers'
            reported = part(
                num_workers=self.workers,
                layout=self.layout,
                worker=worker,
                pass_number=turn,
                active=tuple(sorted(counts)) + ((self.workers - 1,) if missing else ()),
                moves=moves,
            )
            rows.append(WorkerRow(reported, first, count, self.native[worker]))
            new[worker] = self.numbers(count)
            first += count
        step = self.groups.step(rows, first)
        if step.attention is None:
            return None
        for worker in moves:
            self.raw["prompt"] += self.steps[worker]
            self.steps[worker] = []
        q, k, v = (torch.zeros(first, h, WIDTH, dtype=torch.float64) for h in (HEADS, KV_HEADS, KV_HEADS))
        for row in rows:
            positions = list(range(row.num_computed, row.num_computed + row.count))
            query, key, value = new[row.request.worker]
            q[row.rows], k[row.rows], v[row.rows] = self.turned(query, positions), self.turned(key, positions), value
            self.steps[row.request.worker] += list(zip(key, value, strict=True))
            self.native[row.request.worker] += row.count
        output = torch.full((first, HEADS, WIDTH), 7.0, dtype=torch.float64)
        step.attend("second", q, k, v, output)
        assert bool((output[:2] == 7).all())
        return [(output[row.rows], self.expected(row.request.worker, new[row.request.worker][0])) for row in rows]

    def expected(self, worker: int, query: Any) -> Any:
        rest = [t for w, step in enumerate(self.steps) if w != worker for t in step]
        shown = [] if self.layout == "interleaved" else self.raw["others"] + rest + self.raw["own"]
        view = self.raw["prompt"] + shown + self.steps[worker]
        keys = self.turned(torch.stack([k for k, _ in view]), list(range(len(view)))).repeat_interleave(2, 1)
        values = torch.stack([v for _, v in view]).repeat_interleave(2, 1)
        at = range(len(view) - len(query), len(view))
        requested = self.turned(query, list(at))
        scores = torch.einsum("qhd,khd->hqk", requested, keys) * WIDTH**-0.5
        hidden = torch.ones(len(query), len(view), dtype=torch.bool).triu_(len(view) - len(query) + 1)
        return torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, float("-inf")).softmax(-1), values)


@pytest.mark.parametrize("layout", ["combined", "interleaved", "contiguous"])
@pytest.mark.parametrize("workers", [2, 3])
def test_what_a_step_attends_to_is_one_softmax_over_each_workers_view(layout, workers):
    group = Workers(layout, workers)
    group.read("prompt", 9)
    if layout == "combined":
        group.read("others", 3)
    if layout != "interleaved":
        group.read("own", 2)
    for turn in range(1, 13):
        counts = {w: 1 + (turn * w) % 3 if turn % 4 == 1 else 1 for w in range(workers)}
        if turn == 6:
            del counts[1]
        moves = (workers - 1, 0) if turn in (4, 9) and layout != "contiguous" else ()
        for mine, theirs in group.run(counts, turn, moves):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)
    assert group.groups.close("g").shared == 12
    assert group.groups.close("g").shared == 0


def test_a_stage_of_a_pipeline_moves_texts_of_its_own_layers():
    group = Workers("interleaved", 2, num_hidden_layers=5)
    group.read("prompt", 5)
    for turn, moves in ((1, ()), (2, (1, 0)), (3, ())):
        for mine, theirs in group.run({0: 1, 1: 2}, turn, moves):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)


def test_an_incomplete_or_misordered_pass_is_not_shared_and_counted():
    group = Workers("contiguous", 3)
    group.read("prompt", 5)
    assert group.run({0: 1, 1: 1}, 1, missing=True) is None
    assert group.run({0: 1, 1: 1, 2: 1}, 2) is None
    assert group.run({0: 1, 1: 1, 2: 1}, 1) is not None
    group.native[1] += 1
    assert group.run({0: 1, 1: 1, 2: 1}, 2) is None
    counts = group.groups.close("g")
    assert (counts.shared, counts.skipped) == (1, 3)


def test_an_unknown_group_uses_ordinary_attention():
    group = Workers("contiguous", 2)
    assert group.run({0: 1, 1: 1}, 1) is None


def test_a_prompt_in_chunks_by_several_workers_is_stored_once():
    from reason.serving.vllm.shared_cache import WorkerRow

    group = Workers("contiguous", 2)

    def kept(worker: int, count: int, computed: int) -> list[tuple[int, int]]:
        reported = part(kind="prompt", worker=worker, pass_number=0, layout="contiguous", active=())
        step = group.groups.step([WorkerRow(reported, 0, count, computed)], count)
        return [(len(copy.slots), copy.rows.start) for copy in step.copies]

    assert kept(0, 4, 0) == [(4, 0)]
    assert kept(1, 6, 0) == [(2, 4)]
    assert kept(0, 5, 4) == [(3, 2)]
    assert kept(1, 3, 6) == []


# --- Passes


def request(name: str, tokens: int = 1) -> Any:
    return SimpleNamespace(request_id=name, prompt_token_ids=[0] * tokens)


def test_a_pass_goes_on_when_all_are_there_in_the_order_of_the_workers():
    gate = PassGate()
    late, early = request("late"), request("early", 3)
    assert gate.add(part(worker=1), "late", late) == []
    assert gate.add(part(worker=0, group="other"), "x", request("x")) == []
    assert gate.add(part(worker=0), "early", early) == [early, late]
    assert gate.check_step({}, is_idle=False) == []
    assert gate.check_step({"late": 1, "early": 3, "x": 5}, is_idle=False) == []
    assert gate.check_step({}, is_idle=True) == []


@pytest.mark.parametrize(
    ("scheduled", "idle", "lost"),
    [({"a": 1}, False, True), ({"a": 1, "b": 1}, False, True), ({"a": 1, "b": 2}, False, False), ({}, True, True)],
)
def test_a_pass_that_does_not_come_into_one_step_is_lost(scheduled, idle, lost):
    gate = PassGate()
    gate.add(part(worker=0), "a", request("a"))
    gate.add(part(worker=1), "b", request("b", 2))
    assert [one.request_id for one in gate.check_step(scheduled, idle)] == (["a", "b"] if lost else [])
    assert gate.check_step({}, is_idle=True) == []


def test_a_finished_request_ends_its_pass():
    gate = PassGate()
    gate.add(part(worker=0), "a", request("a"))
    gate.discard(["a", "unknown"])
    assert gate.add(part(worker=1), "b", request("b")) == []
    gate.add(part(worker=0), "a2", request("a2"))
    gate.discard(["b"])
    assert gate.check_step({}, is_idle=True) == []


# --- Inputs and lengths


def encoded(text: str) -> list[int]:
    return [ord(c) for c in text]


def unchecked(ids: Any) -> None:
    return None


def test_headers_are_read_where_they_are_seen():
    def headers(**settings: Any) -> tuple[list[int], list[int]]:
        return header_ids(
            WorkerGroupConfig(prompt=Prompt(text="p"), others_header="o", own_header="m", **settings), encoded
        )

    assert headers() == ([111], [109])
    assert headers(layout="contiguous") == ([], [109])
    assert headers(layout="interleaved") == headers(num_workers=1) == ([], [])


def test_a_token_is_read_before_the_text_behind_it():
    opening = WorkerGroupConfig(prompt=Prompt(text="p"))
    step = GroupStep(inputs=(WorkerInput(token=5, text="a"), None))
    assert input_ids(step, opening, encoded, unchecked) == [[5, 97], []]
    for wrong in (
        GroupStep(inputs=(None, None)),
        GroupStep(inputs=(WorkerInput(),)),
        GroupStep(inputs=(WorkerInput(), None)),
        GroupStep(inputs=(WorkerInput(token=1), None), moves=(2,)),
    ):
        with pytest.raises(UserError):
            input_ids(wrong, opening, encoded, unchecked)


@given(st.sampled_from(["combined", "interleaved", "contiguous"]), st.data())
def test_lengths_follow_the_blocks(layout, data):
    lengths = ViewLengths(layout, 10, 4, (0, 0, 0))
    history, steps = 10, [0, 0, 0]
    for _ in range(5):
        moves = () if layout == "contiguous" else tuple(data.draw(st.sets(st.integers(0, 2))))
        read = data.draw(st.lists(st.integers(0, 5), min_size=3, max_size=3).filter(any))
        for worker in moves:
            history, steps[worker] = history + steps[worker], 0
        steps = [a + b for a, b in zip(steps, read, strict=True)]
        views = [history + (own if layout == "interleaved" else 4 + sum(steps)) for own in steps]
        longest = max(view for view, more in zip(views, read, strict=True) if more)
        with pytest.raises(ContextTooLong) as caught:
            lengths.after(read, moves, longest - 1)
        assert caught.value.tokens == longest
        lengths = lengths.after(read, moves, longest)
        assert (lengths.history, list(lengths.own)) == (history, steps)


# --- Batch slots


async def test_groups_take_all_their_batch_slots_or_wait(clock):
    slots = BatchSlots(9)
    with pytest.raises(UserError, match="max_num_seqs"):
        await slots.acquire(9)
    await slots.acquire(5)
    waiting = asyncio.ensure_future(slots.acquire(4))
    await clock.settle()
    await slots.acquire(3)
    await slots.release(3)
    await clock.settle()
    assert not waiting.done()
    await slots.release(5)
    await waiting
    gone = asyncio.ensure_future(slots.acquire(5))
    await clock.settle()
    gone.cancel()
    await asyncio.wait([gone])
    await slots.acquire(4)


# --- What is refused at the start


def test_an_engine_whose_workers_cannot_share_is_refused(tmp_path):
    def arguments(version: str = "0.32.0", config: dict[str, Any] = CONFIG, **engine: Any) -> dict[str, Any]:
        (tmp_path / "config.json").write_text(json.dumps(config))
        settings, own = VllmSettings(engine=engine), {"logits_processors": ["ours"]}
        return shared_cache_arguments(tmp_path, settings, version, own, cpu=True)

    assert arguments()["logits_processors"] == ["ours", ROW_TRACKER]
    for tested in ("0.32.5", "0.33.0", "0.33.0+cpu"):
        assert arguments(tested)["scheduler_cls"] == SCHEDULER
    for other in ("0.31.0", "0.34.1"):
        with pytest.raises(UserError, match=rf"{re.escape(other)}.*install vLLM 0\.32 or 0\.33"):
            arguments(other)
    for more in (
        {"model_type": "gemma"},
        {"model_type": "smollm3", "num_hidden_layers": 4},
        {"model_type": "gemma3_text", "sliding_window": 64},
        {"use_sliding_window": True, "sliding_window": 64},
        {"rope_scaling": {"rope_type": "dynamic"}},
    ):
        with pytest.raises(UserError, match="attention"):
            arguments(config=CONFIG | more)
    for name in ("scheduler_cls", "data_parallel_size", "kv_cache_dtype"):
        with pytest.raises(UserError, match=name):
            arguments(**{name: "x"})


def test_a_gpu_shares_with_model_runner_v1_only(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    own = {"logits_processors": []}
    for value in (None, "1"):
        monkeypatch.delenv(RUNNER_V2, raising=False)
        if value is not None:
            monkeypatch.setenv(RUNNER_V2, value)
        with pytest.raises(UserError, match=rf"runner V2 cannot share.*{RUNNER_V2}=0"):
            shared_cache_arguments(tmp_path, VllmSettings(), "0.33.0", own, cpu=False)
    monkeypatch.setenv(RUNNER_V2, "0")
    assert shared_cache_arguments(tmp_path, VllmSettings(), "0.33.0", own, cpu=False)["scheduler_cls"] == SCHEDULER
