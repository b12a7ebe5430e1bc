"""The connector's two halves with stand-ins for the engine: nothing is started, and vLLM is not needed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from reason.core.errors import BackendError, UserError
from reason.core.settings import VllmSettings
from reason.serving.kv_store import PayloadFile
from reason.serving.prefix_directory import PrefixDirectory, PrefixOwner, PrefixStorage
from reason.serving.vllm.kv_transfer import (
    KEY,
    BlockLayout,
    BlockRead,
    BlockWrite,
    ConnectorScheduler,
    PinnedBlocks,
    TransferReport,
    TransferRequest,
    TransferResponse,
    token_hash,
)
from reason.serving.vllm.metrics import CacheCounters, CacheStatsLogger, cache_counters
from reason.serving.vllm.options import uses_connector

torch = pytest.importorskip("torch", reason="the extra [local] is not installed")

BLOCKS, BLOCK = 10, 4


def caches(seed: int, *, layers: int = 2, width: int = 6, blocks: int = BLOCKS) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"layer.{i}": torch.randn(blocks, 3, width, generator=generator, dtype=torch.float32) for i in range(layers)
    }


def files_of(cache: dict[str, Any], *, rank: int = 0, ranks: int = 1) -> Any:
    from reason.serving.vllm.kv_transfer import BlockStorage

    return BlockStorage(cache, BLOCKS, BLOCK, "cpu TEST", rank, ranks)


def written(directory: Path, tokens: str = "t") -> tuple[dict[str, Any], PayloadFile]:
    """Blocks 2, 5 and 3 of a cache, written."""
    cache = caches(1)
    worker = files_of(cache)
    worker.write(BlockWrite("r", directory, tokens, (2, 5, 3)))
    assert worker.take_report().written == {"r": 1}
    assert worker.take_report() is None
    [path] = directory.iterdir()
    data = path.read_bytes()
    return cache, PayloadFile(name=path.name, nbytes=len(data), sha256=hashlib.sha256(data).hexdigest())


# --- The worker's half


def test_blocks_come_back_into_other_blocks_bit_for_bit(tmp_path: Path) -> None:
    source, file = written(tmp_path)
    target = caches(2)
    before = {name: c.clone() for name, c in target.items()}
    worker = files_of(target)
    worker.read(BlockRead("r", tmp_path, (file,), "t", 1, (8, 0)))
    assert worker.take_report() is None
    assert worker.take_failed_blocks() == set()
    for name, cache in target.items():
        assert torch.equal(cache[8], source[name][5])
        assert torch.equal(cache[0], source[name][3])
        rest = [i for i in range(BLOCKS) if i not in (0, 8)]
        assert torch.equal(cache[rest], before[name][rest])


def refused(target: dict[str, Any], order: BlockRead, words: str, **more: Any) -> None:
    before = {name: c.clone() for name, c in target.items()}
    worker = files_of(target, **more)
    worker.read(order)
    code, message = worker.take_report().failed["r"]
    assert code == "data_error"
    assert words in message
    assert worker.take_failed_blocks() == set(order.blocks)
    assert worker.take_failed_blocks() == set()
    assert all(torch.equal(c, before[name]) for name, c in target.items()), "a damaged file must change nothing"


@hypothesis_settings(max_examples=40, deadline=None)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_is_detected(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int) -> None:
    directory = tmp_path_factory.mktemp("flip")
    _, file = written(directory)
    data = bytearray((directory / file.name).read_bytes())
    data[place % len(data)] ^= 1 << bit
    (directory / file.name).write_bytes(data)
    refused(caches(2), BlockRead("r", directory, (file,), "t", 0, (1,)), "SHA-256")


def test_what_does_not_fit_is_not_loaded(tmp_path: Path) -> None:
    _, file = written(tmp_path)
    order = BlockRead("r", tmp_path, (file,), "t", 0, (1, 4))
    refused(caches(2, layers=3), order, "other layers")
    refused(caches(2, width=7), order, "other blocks")
    refused({n: c.to(torch.bfloat16) for n, c in caches(2).items()}, order, "other blocks")
    refused(caches(2), BlockRead("r", tmp_path, (file,), "t", 2, (1, 4)), "other blocks")
    refused(caches(2), BlockRead("r", tmp_path, (file,), "u", 0, (1,)), "other tokens")
    refused(caches(2), order, "number of workers", ranks=2)
    refused(caches(2), order, "number of workers", rank=1)
    short = file.model_copy(update={"nbytes": file.nbytes - 1})
    refused(caches(2), BlockRead("r", tmp_path, (short,), "t", 0, (1,)), "bytes instead of")
    path = tmp_path / file.name
    path.write_bytes(b"no tensors")
    nonsense = PayloadFile(name=file.name, nbytes=10, sha256=hashlib.sha256(b"no tensors").hexdigest())
    refused(caches(2), BlockRead("r", tmp_path, (nonsense,), "t", 0, (1,)), "no saved prefix")
    path.unlink()
    refused(caches(2), order, "cannot be read")


def test_an_unwritable_directory_is_reported(tmp_path: Path) -> None:
    worker = files_of(caches(1))
    worker.write(BlockWrite("r", tmp_path / "gone", "t", (1,)))
    report = worker.take_report()
    assert report.failed["r"][0] in ("backend_error", "backend_unavailable")
    assert not report.written


def test_caches_that_are_no_blocks_are_refused_and_shared_ones_kept_once() -> None:
    from reason.serving.vllm.kv_transfer import combined_layout

    assert "blocks" in files_of(caches(1, blocks=BLOCKS + 1)).layout.refusal
    assert "several shapes" in files_of(caches(1, layers=1) | {"other": caches(1, width=8)["layer.0"]}).layout.refusal
    cache = caches(1)
    cache["twin"] = cache["layer.0"]
    shape = files_of(cache).layout
    assert shape.nbytes == 2 * 3 * 6 * 4
    assert shape == files_of(caches(3)).layout
    assert shape.layout != files_of(caches(3), ranks=2).layout.layout
    both = combined_layout([shape, shape])
    assert (both.nbytes, both.layout) == (2 * shape.nbytes, shape.layout)
    assert combined_layout([shape, BlockLayout(refusal="no")]).refusal == "no"
    assert combined_layout([]).refusal


# --- The scheduler's half


class Pool:
    """vLLM's block pool, as far as pins use it."""

    def __init__(self, count: int, hashed: set[int] | None = None) -> None:
        self.num_gpu_blocks, self.enable_caching = count, True
        known = set(range(1, count)) if hashed is None else hashed
        self.blocks = [
            SimpleNamespace(block_id=i, is_null=i == 0, block_hash=i if i in known else None, uses=0)
            for i in range(count)
        ]

    def touch(self, blocks: list[Any]) -> None:
        for b in blocks:
            b.uses += 1

    def free_blocks(self, blocks: Any) -> None:
        for b in blocks:
            assert b.uses > 0, "freed more often than held"
            b.uses -= 1

    def used(self) -> dict[int, int]:
        return {b.block_id: b.uses for b in self.blocks if b.uses}


def test_pins_count_every_block_once_against_the_bound() -> None:
    pool = Pool(20)
    pins = PinnedBlocks(pool, 5)
    pins.pin("a", [1, 2, 3])
    pins.pin("b", [1, 2, 4])
    assert pool.used() == {1: 2, 2: 2, 3: 1, 4: 1}
    with pytest.raises(UserError, match="maximum is 5") as caught:
        pins.pin("c", [5, 6])
    assert caught.value.code == "prefix_too_large"
    pins.pin("a", [1, 5])  # replaces what was pinned
    assert pool.used() == {1: 2, 2: 1, 4: 1, 5: 1}
    with pytest.raises(BackendError, match="does not have"):
        pins.pin("d", [0])
    pins.release(["a", "unknown", "b", "a"])
    assert pool.used() == {}
    assert pins.names == []


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.lists(st.integers(1, 7), unique=True))), max_size=30
    )
)
def test_pins_and_names_stay_consistent(moves: list[tuple[str, list[int] | None]]) -> None:
    pool, held = Pool(8), {}
    pins = PinnedBlocks(pool, 100)
    for name, blocks in moves:
        if blocks is None:
            pins.release([name])
            held.pop(name, None)
        else:
            pins.pin(name, blocks)
            held[name] = blocks
        expected: dict[int, int] = {}
        for own in held.values():
            for b in own:
                expected[b] = expected.get(b, 0) + 1
        assert pool.used() == expected


def request(name: str, prompt: list[int], ask: TransferRequest | None = None, params: Any = None) -> Any:
    return SimpleNamespace(
        request_id=name,
        prompt_token_ids=prompt,
        kv_transfer_params=params if params is not None else None if ask is None else ask.params(),
    )


def step(name: str, computed: int, tokens: int, *, new: bool = True) -> Any:
    fresh = [SimpleNamespace(req_id=name, num_computed_tokens=computed)] if new else []
    old = SimpleNamespace(req_ids=[] if new else [name], num_computed_tokens=[] if new else [computed])
    return SimpleNamespace(num_scheduled_tokens={name: tokens}, scheduled_new_reqs=fresh, scheduled_cached_reqs=old)


class Bed:
    """A harness, its workers and its pool."""

    def __init__(self, root: Path, *, names: bool = True, ranks: int = 1) -> None:
        self.root = root
        self.owner = PrefixOwner("m", "id", "float32", "l")
        self.directory = PrefixDirectory(PrefixStorage(root, 1 << 20), self.owner)
        self.scheduler = ConnectorScheduler(root, BLOCK, (lambda shape: self.directory) if names else None)
        self.scheduler.set_layout(BlockLayout(dtype="float32", layout="l", nbytes=144), ranks)
        self.pool = Pool(40)
        self.tables: dict[str, list[int]] = {}
        manager = SimpleNamespace(block_pool=self.pool, get_block_ids=lambda name: (self.tables[name],))
        self.scheduler.bind(manager, 24)

    def save(self, name: str, prompt: list[int]) -> dict[str, Any]:
        """A complete request that saves, by name."""
        self.scheduler.add_request(request("s", prompt, TransferRequest(save=name)))
        self.tables["s"] = list(range(1, len(prompt) // BLOCK + 2))
        _, [order] = self.scheduler.schedule(step("s", 0, len(prompt)))
        cache = caches(5)
        files_of(cache).write(order)
        self.scheduler.add_report(TransferReport(written={"s": 1}))
        reported = self.scheduler.finish_request(request("s", prompt), self.tables["s"], True)
        assert reported is not None
        return reported


def reported(params: dict[str, Any] | None) -> TransferResponse:
    actual = TransferResponse.from_params(params)
    assert actual is not None
    return actual


def test_a_prefix_is_saved_by_name_and_found_again(tmp_path: Path) -> None:
    bed, prompt = Bed(tmp_path / "p"), list(range(100, 111))
    assert reported(bed.save("rules", prompt)).stored_tokens == 8
    saved = bed.directory.describe("rules")
    assert saved is not None
    assert (saved.token_ids, saved.stored) == (tuple(prompt), 8)
    asking = request("r", [*prompt[:6], 7, 7, 7, 7], TransferRequest(restore="rules", pin="x"))
    bed.scheduler.add_request(asking)
    assert bed.scheduler.num_matched_tokens(asking, 0) == 4  # six tokens are common: one full block
    assert bed.scheduler.num_matched_tokens(asking, 4) == 0
    assert bed.scheduler.num_matched_tokens(asking, 0) == 4
    bed.scheduler.blocks_allocated(asking, lambda: [11, 12, 13], 4)
    [read], writes = bed.scheduler.schedule(step("r", 4, 6))
    assert (read.first, read.blocks, read.token_hash) == (0, (11,), token_hash(prompt[:8]))
    assert not writes
    assert bed.scheduler.schedule(step("r", 10, 1, new=False)) == ([], [])
    answer = reported(bed.scheduler.finish_request(asking, [11, 12, 13], True))
    assert (answer.read_tokens, answer.pinned_blocks, answer.code) == (4, 2, "")
    assert bed.scheduler.pinned == ["x"]


def test_one_token_is_always_left_to_compute(tmp_path: Path) -> None:
    bed, prompt = Bed(tmp_path / "p"), list(range(8))
    bed.save("rules", prompt)
    same = request("r", prompt, TransferRequest(restore="rules"))
    bed.scheduler.add_request(same)
    assert bed.scheduler.num_matched_tokens(same, 0) == 4
    bed.scheduler.finish_request(same, [], True)


def test_blocks_are_written_when_the_prompt_is_complete_and_only_once(tmp_path: Path) -> None:
    bed, prompt = Bed(tmp_path / "p"), list(range(10))
    bed.scheduler.add_request(request("s", prompt, TransferRequest(save="rules")))
    bed.tables["s"] = [4, 5, 6]
    assert bed.scheduler.schedule(step("s", 0, 6)) == ([], [])  # a chunk
    _, [order] = bed.scheduler.schedule(step("s", 6, 4, new=False))
    assert order.blocks == (4, 5)
    assert bed.scheduler.schedule(step("s", 10, 1, new=False)) == ([], [])


def test_an_aborted_save_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "p"
    bed, prompt = Bed(root), list(range(10))
    for ordered in (False, True):
        bed.scheduler.add_request(request("s", prompt, TransferRequest(save="rules", pin="rules")))
        bed.tables["s"] = [4, 5, 6]
        if ordered:
            bed.scheduler.schedule(step("s", 0, 10))
        bed.scheduler.finish_request(request("s", prompt), [4, 5, 6], False)
        bed.scheduler.add_report(TransferReport(written={"s": 1}))
    assert bed.directory.describe("rules") is None
    assert bed.pool.used() == {}
    assert not [p for p in root.rglob("*") if "partial" in p.name]


def test_all_workers_must_have_written(tmp_path: Path) -> None:
    bed, prompt = Bed(tmp_path / "p", ranks=2), list(range(10))
    bed.scheduler.add_request(request("s", prompt, TransferRequest(save="rules")))
    bed.tables["s"] = [4, 5, 6]
    _, [order] = bed.scheduler.schedule(step("s", 0, 10))
    for rank in range(2):
        assert bed.directory.describe("rules") is None
        files_of(caches(rank), rank=rank, ranks=2).write(order)
        report = TransferReport(written={"s": 1})
        report.merge(TransferReport())
        bed.scheduler.add_report(report)
    saved = bed.directory.describe("rules")
    assert saved is not None
    assert len(saved.files) == 2


def test_a_worker_that_fails_ends_the_save_and_keeps_the_old(tmp_path: Path) -> None:
    bed = Bed(tmp_path / "p")
    bed.save("rules", list(range(10)))
    other = list(range(50, 60))
    bed.scheduler.add_request(request("s", other, TransferRequest(save="rules", pin="x")))
    bed.tables["s"] = [4, 5, 6]
    bed.scheduler.schedule(step("s", 0, 10))
    bed.scheduler.add_report(TransferReport(failed={"s": ("backend_unavailable", "the disk is full")}))
    answer = reported(bed.scheduler.finish_request(request("s", other), [4, 5, 6], True))
    assert (answer.code, answer.message, answer.pinned_blocks) == ("backend_unavailable", "the disk is full", 0)
    saved = bed.directory.describe("rules")
    assert saved is not None
    assert saved.token_ids == tuple(range(10))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({KEY: {"save": "a", "write": "b"}}, "not by both"),
        ({KEY: {"sav": "a"}}, "sav"),
        ({KEY: 5}, "kv_transfer_params.reason"),
        (TransferRequest(restore="unknown").params(), "unknown"),
        (TransferRequest(restore="../x").params(), "cannot name"),
        (TransferRequest(write="/etc").params(), "no directory"),
        (TransferRequest(read="/etc/passwd").params(), "no directory"),
    ],
)
def test_nonsense_is_answered_and_never_raised(tmp_path: Path, params: Any, words: str) -> None:
    bed = Bed(tmp_path / "p")
    asking = request("r", list(range(10)), params=params)
    bed.scheduler.add_request(asking)
    assert bed.scheduler.num_matched_tokens(asking, 0) == 0
    assert bed.scheduler.schedule(step("r", 0, 10)) == ([], [])
    answer = reported(bed.scheduler.finish_request(asking, [1, 2], True))
    assert words in answer.message
    assert answer.code


def test_a_directory_must_belong_to_a_writer(tmp_path: Path) -> None:
    root = tmp_path / "p"
    bed = Bed(root, names=False)
    with bed.directory.begin("rules", 10) as attempt:
        for path, fine in (
            (str(attempt.directory), True),
            (f"{attempt.directory}/..", False),
            (str(attempt.directory.parent / ".." / "x" / ".partial-y"), False),
            (str(root / ".partial-x"), False),
            (str(tmp_path / ".partial-x"), False),
        ):
            asking = request("r", list(range(10)), TransferRequest(write=path))
            bed.scheduler.add_request(asking)
            assert bool(reported(bed.scheduler.finish_request(asking, [], False)).code) is not fine
        link = attempt.directory.parent / ".partial-link"
        link.symlink_to(tmp_path)
        asking = request("r", list(range(10)), TransferRequest(write=str(link)))
        bed.scheduler.add_request(asking)
        assert "no directory" in reported(bed.scheduler.finish_request(asking, [], False)).message
    asking = request("r", list(range(10)), TransferRequest(save="x"))
    bed.scheduler.add_request(asking)
    assert "accepts no names" in reported(bed.scheduler.finish_request(asking, [], True)).message


def test_a_refusal_is_reported_to_every_request_of_ours(tmp_path: Path) -> None:
    bed = Bed(tmp_path / "p")
    bed.scheduler.refuse("of a reason")
    bed.scheduler.add_request(asking := request("r", [1], TransferRequest(describe=True)))
    shape = reported(bed.scheduler.finish_request(asking, [], True)).layout
    assert shape is not None
    assert shape.refusal == "of a reason"
    bed.scheduler.add_request(asking := request("r", list(range(9)), TransferRequest(save="x")))
    assert "of a reason" in reported(bed.scheduler.finish_request(asking, [], True)).message
    for plain in (request("p", [1]), request("p", [1], params={"do_remote_prefill": True})):
        bed.scheduler.add_request(plain)
        assert bed.scheduler.num_matched_tokens(plain, 0) == 0
        assert bed.scheduler.finish_request(plain, [], True) is None


# --- Counters and settings


def test_the_schedulers_statistics_are_added_up() -> None:
    statistics = CacheStatsLogger()
    assert statistics(None, 3) is statistics
    statistics.record(None, None)
    own, disk = SimpleNamespace(queries=100, hits=60), SimpleNamespace(queries=40, hits=20)
    for connector in (None, disk):
        statistics.record(SimpleNamespace(prefix_cache_stats=own, connector_prefix_cache_stats=connector), None)
    actual = cache_counters(32, statistics, None)
    assert actual == CacheCounters(block_tokens=32, queried_tokens=200, hit_tokens=120, restored_tokens=20)
    assert actual.hit_rate == pytest.approx(0.7)
    assert CacheCounters(block_tokens=32).hit_rate == 0
    since = actual - CacheCounters(block_tokens=32, queried_tokens=50)
    assert (since.queried_tokens, since.stored_blocks) == (150, None)
    later = cache_counters(32, statistics, SimpleNamespace(stored=9, removed=4, lost=0))  # type: ignore[arg-type]
    assert (later - later).stored_blocks == 0
    assert json.loads(later.model_dump_json())["evicted_blocks"] == 4


@pytest.mark.parametrize(
    ("settings", "cpu", "kept"),
    [
        (VllmSettings(), True, True),
        (VllmSettings(), False, False),
        (VllmSettings(pins=True), False, True),
        (VllmSettings(pins=False), True, False),
        (VllmSettings(prefix_caching=False), True, False),
        (VllmSettings(engine={"kv_transfer_config": {}}), True, False),
    ],
)
def test_where_prefixes_are_stored(settings: VllmSettings, cpu: bool, kept: bool) -> None:
    assert uses_connector(settings, cpu) is kept


@pytest.mark.parametrize("more", [{"prefix_caching": False}, {"engine": {"kv_transfer_config": {}}}])
def test_pins_that_cannot_be_had_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"vllm\.pins"):
        uses_connector(VllmSettings(pins=True, **more), True)
