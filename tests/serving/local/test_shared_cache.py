"""Workers on one cache: what they compute, compared with views that are built for each of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from reason.serving.local.model import Decoder
from reason.serving.local.shared_cache import CacheBlock, SharedCache, WorkerChunk
from support.shared_cache_reference import RawBlock, Reference

EXACT = {"atol": 1e-4, "rtol": 1e-5}
PROMPT = [(13 * i + 5) % 264 for i in range(50)]
HEADERS = ([7, 8, 9], [21, 22])


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def decoder(tiny_directory: Callable[[str], Path]) -> Decoder:
    return Decoder.load(tiny_directory("llama"), "fp32")


class Twins:
    """The same workers twice: on our blocks, and on the reference's."""

    def __init__(self, directory: Path, workers: int) -> None:
        self.ours, self.theirs = SharedCache(Decoder.load(directory, "fp32")), Reference(directory)
        self.pairs: dict[str, tuple[CacheBlock, RawBlock]] = {}
        self.workers = workers
        for name, ids in (("history", PROMPT), ("others", HEADERS[0]), ("own", HEADERS[1])):
            self.open(name, ids)
        for worker in range(workers):
            self.open(str(worker), [])

    def open(self, name: str, ids: Sequence[int]) -> None:
        raw = self.theirs.block()
        if ids:
            self.theirs.run([([raw], ids)])
        self.pairs[name] = (self.ours.add_block(ids), raw)

    def view(self, worker: int, layout: str) -> list[str]:
        others = [str(w) for w in range(self.workers) if w != worker]
        return {
            "combined": ["history", "others", *others, "own", str(worker)],
            "interleaved": ["history", str(worker)],
            "contiguous": ["history", *others, "own", str(worker)],
        }[layout]

    def run(self, inputs: dict[int, Sequence[int]], layout: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        views = {worker: self.view(worker, layout) for worker in inputs}
        ours = self.ours.forward(
            [WorkerChunk(tuple(self.pairs[n][0] for n in views[w]), ids) for w, ids in inputs.items()]
        )
        theirs = self.theirs.run([([self.pairs[n][1] for n in views[w]], ids) for w, ids in inputs.items()])
        return list(ours), [rows[-1] for rows in theirs]

    def move(self, worker: int) -> None:
        (mine, raw), (history, all_raw) = self.pairs[str(worker)], self.pairs["history"]
        self.ours.move(mine, history)
        all_raw.absorb(raw)


@pytest.mark.parametrize(
    ("variant", "layout", "workers"),
    [
        ("llama", "combined", 3),
        *(
            pytest.param(variant, *view, marks=pytest.mark.nightly)
            for variant in ("llama", "llama3", "qwen2", "qwen3")
            for view in (("combined", 2), ("combined", 3), ("interleaved", 2), ("contiguous", 4))
            if (variant, view) != ("llama", ("combined", 3))
        ),
    ],
)
def test_thirty_passes_with_moves_are_those_of_views_put_together_anew(variant, layout, workers, tiny_directory):
    draw = random.Random(workers)
    with torch.inference_mode():
        twins = Twins(tiny_directory(variant), workers)
        inputs = {w: [draw.randrange(3, 264) for _ in range(4 + w)] for w in range(workers)}
        for number in range(30):
            ours, theirs = twins.run(inputs, layout)
            for mine, expected in zip(ours, theirs, strict=True):
                torch.testing.assert_close(mine, expected, **EXACT)
            inputs = {w: [draw.randrange(3, 264)] for w in range(workers)}
            if number in (8, 17, 18) and layout != "contiguous":
                # As a finished step: it joins the history, and the worker reads several tokens at once.
                worker = number % workers
                twins.move(worker)
                inputs[worker] = [draw.randrange(3, 264) for _ in range(5)]
            if number == 21:
                del inputs[0]  # a worker that is idle for a pass


def test_one_worker_is_ordinary_decoding_also_across_moves(decoder):
    from reason.serving.local.attention import TokenChunk

    draw = random.Random(3)
    with torch.inference_mode():
        log = decoder.new_kv_cache(512)
        branch = log.new_table()
        decoder.forward([TokenChunk(log, branch, PROMPT, [])])
        workspace = SharedCache(decoder)
        history, own = workspace.add_block(PROMPT), workspace.add_block()
        for number in range(40):
            ids = [draw.randrange(3, 264) for _ in range(3 if number % 9 == 0 else 1)]
            if number in (11, 25, 26):
                workspace.move(own, history)
            mine = workspace.forward([WorkerChunk((history, own), ids)])
            expected = decoder.forward([TokenChunk(log, branch, ids, [len(ids) - 1])])
            torch.testing.assert_close(mine, expected, **EXACT)


def test_a_moved_text_reads_as_the_end_of_the_history_with_unchanged_values(decoder):
    with torch.inference_mode():
        workspace = SharedCache(decoder)
        history, step, probe, other = (
            workspace.add_block(PROMPT),
            workspace.add_block(),
            workspace.add_block(),
            workspace.add_block(),
        )
        workspace.forward([WorkerChunk((history, step), [5, 6, 7, 8])])
        keys = [kv[0, :, :4].clone() for kv in step.kv]
        values = [kv[1, :, :4].clone() for kv in step.kv]
        before = workspace.forward([WorkerChunk((history, step, probe), [9])])
        workspace.move(step, history)
        assert (len(step), len(history), history.token_ids[-4:]) == (0, len(PROMPT) + 4, [5, 6, 7, 8])
        after = workspace.forward([WorkerChunk((history, other), [9])])
        torch.testing.assert_close(after, before, **EXACT)
        for layer, kv in enumerate(history.kv):
            moved = kv[0, :, len(PROMPT) : len(PROMPT) + 4]
            assert torch.equal(kv[1, :, len(PROMPT) : len(PROMPT) + 4], values[layer])
            inside = keys[layer] @ keys[layer].transpose(1, 2)
            torch.testing.assert_close(moved @ moved.transpose(1, 2), inside, atol=1e-4, rtol=1e-4)
            assert not torch.allclose(moved, keys[layer], atol=1e-3)


def test_every_token_is_stored_once_and_no_block_twice(decoder):
    with torch.inference_mode():
        workspace = SharedCache(decoder)
        history, header = workspace.add_block(PROMPT), workspace.add_block(HEADERS[0])
        steps = [workspace.add_block() for _ in range(4)]
        held = {kv.data_ptr() for block in workspace.blocks for kv in block.kv}
        for number in range(10):
            workspace.forward(
                [
                    WorkerChunk((history, header, *(s for s in steps if s is not own), own), [number + 3])
                    for own in steps
                ]
            )
        assert workspace.num_tokens == len(PROMPT) + len(HEADERS[0]) + 40
        assert len(held) == 6 * decoder.config.num_layers
        assert held == {kv.data_ptr() for block in workspace.blocks for kv in block.kv}
        columns = sum(block.capacity for block in workspace.blocks)
        assert workspace.nbytes == columns * decoder.slot_bytes
        workspace.move(steps[0], history)
        assert workspace.num_tokens == len(PROMPT) + len(HEADERS[0]) + 40


def test_blocks_grow_without_a_change(decoder):
    with torch.inference_mode():
        workspace = SharedCache(decoder)
        history, own = workspace.add_block(PROMPT), workspace.add_block()
        ids = [(7 * i + 3) % 264 for i in range(200)]
        steps = [workspace.forward([WorkerChunk((history, own), [token])])[0] for token in ids]
        assert own.capacity >= 200 > 64
        at_once = SharedCache(decoder)
        expected = at_once.forward([WorkerChunk((at_once.add_block(PROMPT), at_once.add_block()), ids)])[0]
        torch.testing.assert_close(steps[-1], expected, **EXACT)


def test_what_does_not_go_together_is_refused(decoder):
    workspace = SharedCache(decoder)
    history, own = workspace.add_block(PROMPT), workspace.add_block()
    for feeds, said in (
        ([WorkerChunk((history, own), [3]), WorkerChunk((own,), [4])], "into one block"),
        ([WorkerChunk((history, own, own), [3])], "twice"),
        ([WorkerChunk((history, own), [])], "without tokens"),
    ):
        with pytest.raises(ValueError, match=said):
            workspace.forward(feeds)
    assert len(own) == 0
