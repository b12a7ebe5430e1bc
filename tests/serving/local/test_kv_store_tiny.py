"""The contract of named prefixes on tiny models, and what is the embedded engine's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from reason.core.errors import CapabilityMissing, ContextTooLong, DataError, UserError
from reason.core.messages import Completion, Prompt, Request, SamplingParams
from reason.serving.kv_store import PrefixTooLarge, kv_store_of
from reason.serving.local.engine import LocalModel
from reason.serving.local.tasks import PinTask
from reason.serving.model_files.find import ModelFiles
from reason.serving.prefix_directory import PrefixDirectory, PrefixStorage
from support.kv_store_contract import *  # noqa: F403
from support.kv_store_contract import Bench

KV_BYTES = 3 << 20
LIMIT = 900_000


def load(files: ModelFiles, root: Path, weight_format: Any = "fp32", **more: Any) -> LocalModel:
    more = {"kv_cache_bytes": KV_BYTES, "prefixes": PrefixStorage(root, LIMIT)} | more
    return LocalModel.load(files, weight_format=weight_format, threads=1, **more)


async def push_out(model: Any) -> None:
    """Other prompts, until the cache has been filled several times."""
    room = model.capabilities.context_tokens
    for i in range(8):
        text = "".join(chr(97 + (i * 7 + j * (i + 3)) % 26) for j in range(min(900, room // 2)))
        await model.generate([Request(prompt=Prompt(text=text), sampling=SamplingParams(max_tokens=1, temperature=0))])


@pytest.fixture
async def bench(tmp_path: Path, tiny_files: Callable[[str], ModelFiles]) -> AsyncIterator[Bench]:
    root = tmp_path / "prefixes"

    async def open_again(model: Any) -> LocalModel:
        await model.aclose()
        return load(tiny_files("llama"), root)

    bench = Bench(load(tiny_files("llama"), root), root, open_again, push_out, too_large=Prompt(text="x" * 1000))
    yield bench
    await bench.clear()
    await bench.model.aclose()


async def response(model: LocalModel, prompt: Prompt, **more: Any) -> list[Completion]:
    sampling = SamplingParams(**({"temperature": 1.0, "n": 3, "seed": 5, "max_tokens": 20, "logprobs": True} | more))
    [samples] = await model.generate([Request(prompt=prompt, sampling=sampling)])
    return samples


PROMPT = Prompt.user("What is the sum of all primes below twenty? " * 3, system="Think. " * 30)


@pytest.mark.parametrize(
    ("variant", "weight_format"),
    [
        ("llama", "fp32"),
        ("llama", "bf16"),
        ("llama", "int4"),
        ("llama3", "fp32"),
        ("qwen2", "bf16"),
        ("qwen3", "fp32"),
        ("gpt_neox", "fp32"),
        ("gemma", "bf16"),
    ],
)
async def test_every_family_and_format_comes_back_bit_for_bit(
    tmp_path: Path, tiny_files: Callable[[str], ModelFiles], variant: str, weight_format: str
) -> None:
    files = tiny_files(variant)
    plain = load(files, tmp_path, weight_format, prefixes=None)
    cold = await response(plain, PROMPT)
    warm = await response(plain, PROMPT)
    await plain.aclose()
    first = load(files, tmp_path, weight_format)
    saved = (await first.kv_store.save("p", PROMPT)).saved
    assert saved.stored == len(saved.token_ids) == first.count_tokens(PROMPT)
    assert saved.dtype == ("float32" if weight_format == "fp32" else "bfloat16")
    await first.aclose()
    second = load(files, tmp_path, weight_format)
    await second.kv_store.restore("p")
    actual = await response(second, PROMPT)
    await second.aclose()
    assert actual[0].usage.cached_tokens == len(saved.token_ids) - 1
    for expected in (warm,) if variant == "gpt_neox" else (warm, cold):  # transformers' modules sum in other orders
        assert [c.token_ids for c in actual] == [c.token_ids for c in expected]
        assert [c.logprobs for c in actual] == [c.logprobs for c in expected]


async def test_number_formats_of_one_model_are_kept_apart(
    tmp_path: Path, tiny_files: Callable[[str], ModelFiles]
) -> None:
    fp32 = load(tiny_files("llama"), tmp_path)
    await fp32.kv_store.save("p", PROMPT)
    bf16 = load(tiny_files("llama"), tmp_path, "bf16")
    with pytest.raises(DataError, match=r"fp32.*bf16"):
        await bf16.kv_store.restore("p")
    await bf16.kv_store.save("p", PROMPT)
    assert [len(await m.kv_store.saved()) for m in (fp32, bf16)] == [1, 1]
    await fp32.kv_store.drop("p")
    assert [len(await m.kv_store.saved()) for m in (fp32, bf16)] == [0, 1]
    await fp32.aclose()
    await bf16.aclose()


async def test_the_files_of_another_model_do_not_get_in(
    tmp_path: Path, tiny_files: Callable[[str], ModelFiles]
) -> None:
    """Even if the description was made to fit."""
    small = load(tiny_files("qwen3"), tmp_path)
    await small.kv_store.save("p", Prompt(text="some text"))
    large = load(tiny_files("llama"), tmp_path)
    await large.kv_store.save("p", Prompt(text="some text"))
    await large.kv_store.drop("p", keep_file=True)
    [theirs], [own] = await small.kv_store.saved(), await large.kv_store.saved()
    assert theirs.directory is not None
    assert own.directory is not None
    for file in theirs.saved.files:
        (own.directory / file.name).write_bytes((theirs.directory / file.name).read_bytes())
    lie = theirs.saved.model_copy(update={"identity": large.identity, "token_ids": own.saved.token_ids})
    (own.directory / "prefix.json").write_text(lie.model_dump_json())
    with pytest.raises(DataError, match="does not hold 3 layers"):
        await large.kv_store.restore("p")
    await small.aclose()
    await large.aclose()


async def test_a_description_with_tokens_of_another_vocabulary_is_refused(
    tmp_path: Path, tiny_files: Callable[[str], ModelFiles]
) -> None:
    model = load(tiny_files("llama"), tmp_path)
    await model.kv_store.save("p", Prompt(text="abc"))
    await model.kv_store.drop("p", keep_file=True)
    [state] = await model.kv_store.saved()
    assert state.directory is not None
    lie = state.saved.model_copy(update={"token_ids": (70_000, *state.saved.token_ids[1:])})
    (state.directory / "prefix.json").write_text(lie.model_dump_json())
    with pytest.raises(DataError, match="70000"):
        await model.kv_store.restore("p")
    await model.aclose()


async def test_pinned_bytes_are_limited(tmp_path: Path, tiny_files: Callable[[str], ModelFiles]) -> None:
    model = load(tiny_files("llama"), tmp_path, prefixes=PrefixStorage(tmp_path, 1 << 30))
    store = model.kv_store
    for i in range(40):
        try:
            await store.save(f"p{i}", Prompt(text=f"{i:03d}" + "abcdefghij" * 30))
        except PrefixTooLarge as e:
            refused = e
            break
    else:
        pytest.fail("nothing was refused")
    assert i >= 2
    assert "drop others" in refused.hint
    assert model.cache_bytes <= KV_BYTES
    await push_out(model)
    await store.drop("p0", keep_file=True)
    await store.save("p-last", Prompt(text="zz" + "abcdefghij" * 30))
    with pytest.raises(PrefixTooLarge):
        await store.restore("p0")
    await store.drop("p1")
    await store.restore("p0")
    await model.aclose()


async def test_dropped_pins_release_the_cache(bench: Bench) -> None:
    for i in range(30):
        await bench.store.save("p", Prompt(text=f"{i:03d}" + "abcdefghij" * 30))
        await bench.store.fork("p", "q", (5, 6))
        await bench.store.drop("q")
    await bench.store.drop("p")
    model: Any = bench.model
    prefixes = model._scheduler.prefix_cache
    await push_out(model)
    assert prefixes._pinned == []
    assert all(t.is_idle for t in prefixes.trees)


async def test_a_cancelled_save_releases_its_cache(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every point: before the engine has started, while it computes, and when it is done and nothing waits."""
    model: Any = bench.model
    waiter: list[asyncio.Task[Any]] = []
    loop = asyncio.get_running_loop()
    tell = PinTask._report

    def cancelled_meanwhile(task: PinTask, *arguments: Any) -> None:
        gone = threading.Event()
        loop.call_soon_threadsafe(lambda: (waiter[0].cancel(), loop.call_soon(gone.set)))
        assert gone.wait(20)
        tell(task, *arguments)

    monkeypatch.setattr(PinTask, "_report", cancelled_meanwhile)
    waiter.append(asyncio.create_task(bench.store.save("p", PROMPT)))
    await asyncio.wait(waiter)
    assert waiter[0].cancelled()
    monkeypatch.undo()
    assert await bench.store.saved() == []
    await response(model, Prompt(text="x"), max_tokens=1)  # the engine has seen to all that came before
    assert model._scheduler.prefix_cache._pinned == []


async def test_a_failed_save_pins_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = bench.model
    monkeypatch.setattr(PrefixDirectory, "publish", _full_disk)
    with pytest.raises(OSError, match="28"):
        await bench.store.save("p", PROMPT)
    monkeypatch.undo()
    await response(model, Prompt(text="x"), max_tokens=1)
    assert model._scheduler.prefix_cache._pinned == []
    assert bench.partial() == []


def _full_disk(*_: Any, **__: Any) -> None:
    raise OSError(28, "28 no space")


async def test_a_full_disk_is_reported(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reason.serving.local.kv_store.write_layers", _full_disk)
    with pytest.raises(Exception, match="is full") as caught:
        await bench.store.save("p", PROMPT)
    assert type(caught.value).__name__ == "BackendUnavailable"
    assert bench.partial() == []


async def test_the_disk_is_never_touched_on_the_event_loop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    here = threading.get_ident()
    where: list[int] = []
    for method in ("begin", "publish", "describe", "read", "states", "remove"):
        real = getattr(PrefixDirectory, method)

        def noted(*arguments: Any, _real: Any = real, **more: Any) -> Any:
            where.append(threading.get_ident())
            return _real(*arguments, **more)

        monkeypatch.setattr(PrefixDirectory, method, noted)
    await bench.store.save("p", PROMPT)
    await bench.store.drop("p", keep_file=True)
    await bench.store.restore("p")
    await bench.store.fork("p", "q", "x")
    await bench.store.saved()
    await bench.store.drop("p")
    assert len(where) >= 9
    assert here not in where


async def test_a_prefix_that_does_not_fit_the_model_is_refused(bench: Bench) -> None:
    with pytest.raises(ContextTooLong, match="'p' would need"):
        await bench.store.save("p", Prompt(text="x" * 5000))
    with pytest.raises(UserError, match="no tokens"):
        await bench.store.save("p", Prompt(text=""))


async def test_the_bound_on_disk_evicts_what_no_engine_here_has_pinned(
    tmp_path: Path, tiny_files: Callable[[str], ModelFiles]
) -> None:
    one = await _sized(tmp_path / "a", tiny_files)
    model = load(tiny_files("llama"), tmp_path / "b", prefixes=PrefixStorage(tmp_path / "b", 3 * one))
    for name in ("old", "new", "pinned"):
        await model.kv_store.save(name, Prompt(text=name + "x" * 200))
    await model.kv_store.drop("old", keep_file=True)
    await model.kv_store.drop("new", keep_file=True)
    await model.kv_store.restore("old")  # used last
    await model.kv_store.drop("old", keep_file=True)
    await model.kv_store.save("more", Prompt(text="more" + "x" * 200))
    assert [s.saved.name for s in await model.kv_store.saved()] == ["more", "old", "pinned"]
    await model.kv_store.restore("old")
    with pytest.raises(PrefixTooLarge, match="pinned prefixes"):
        await model.kv_store.save("one-too-many", Prompt(text="y" * 200))
    await model.aclose()


async def _sized(root: Path, tiny_files: Callable[[str], ModelFiles]) -> int:
    """Bytes on disk of a prefix of about 200 tokens."""
    model = load(tiny_files("llama"), root)
    await model.kv_store.save("p", Prompt(text="x" * 206))
    await model.aclose()
    return _bytes_under(root)


def _bytes_under(root: Path) -> int:
    return sum(f.stat().st_size for f in root.rglob("*") if f.is_file())


async def test_an_engine_without_a_directory_pins_nothing(tiny: LocalModel) -> None:
    assert not tiny.capabilities.pins
    with pytest.raises(CapabilityMissing, match="pins"):
        kv_store_of(tiny)
    with pytest.raises(CapabilityMissing, match="pins"):
        _ = tiny.kv_store


async def test_a_closed_engine_can_be_closed_with_pins_and_refuses_further_ones(bench: Bench) -> None:
    await bench.store.save("p", PROMPT)
    old: Any = bench.model
    await bench.fresh()
    assert old.cache_bytes == 0
    await old.kv_store.drop("p", keep_file=True)
    with pytest.raises(Exception, match="closed"):
        await old.kv_store.restore("p")
