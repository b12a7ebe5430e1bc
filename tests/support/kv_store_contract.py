"""The contract of named prefixes, run unchanged against every engine that has them.

A test module imports everything from here and defines the fixture `bench`, a `Bench` without names, which calls
`Bench.clear` after the test.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from reason.core.errors import DataError, UnknownName, UserError
from reason.core.messages import Completion, Prompt, Request, SamplingParams
from reason.serving.kv_store import KVStore, PrefixState, PrefixTooLarge, SupportsKVStore, kv_store_of
from reason.serving.model import LanguageModel

MIND = "The old lighthouse keeper wrote down the height of every wave, the colour of every sail. "


@dataclass
class Bench:
    """An engine and what to do with it.

    Attributes:
        model: The engine that is open now.
        root: Directory of all prefixes.
        open_again: Closes `model` and opens another engine on the same directory and weights.
        push_out: Fills the engine's cache with other prompts until nothing is left that is not pinned.
        granule: Tokens of which keys and values are reused together: the engine's block, 1 without blocks.
        tolerance: Nats that a log-probability may differ between a reused prompt and a computed one.
        pieces: Nats that it may differ if a prompt is computed in other pieces.
        too_large: A prompt whose keys and values exceed the limit on disk together with those of `prompt`; None if that
            takes too long to try.
        prompt: About 150 tokens or more.
    """

    model: LanguageModel
    root: Path
    open_again: Callable[[LanguageModel], Awaitable[LanguageModel]]
    push_out: Callable[[LanguageModel], Awaitable[None]]
    granule: int = 1
    tolerance: float = 0.0
    pieces: float = 1e-4
    too_large: Prompt | None = None
    prompt: Prompt = field(default_factory=lambda: Prompt(text=MIND * 4))

    @property
    def store(self) -> KVStore:
        return kv_store_of(self.model)

    async def fresh(self) -> KVStore:
        self.model = await self.open_again(self.model)
        return self.store

    def tokens(self, prompt: Prompt) -> int:
        counted = self.model.count_tokens(prompt)
        assert counted is not None
        return counted

    def reusable(self, tokens: int) -> int:
        """Tokens of a prompt of so many that a hit on all of them spares: the last one is always computed."""
        return (tokens - 1) // self.granule * self.granule

    async def reply(self, prompt: Prompt) -> Completion:
        sampling = SamplingParams(temperature=0.0, max_tokens=8, seed=0, ignore_eos=True, logprobs=True)
        [[completion]] = await self.model.generate([Request(prompt=prompt, sampling=sampling)])
        assert completion.ok, completion.failure
        return completion

    async def state(self, name: str) -> PrefixState | None:
        return next((s for s in await self.store.saved() if s.saved.name == name), None)

    def same(self, a: Completion, b: Completion, *, pieces: bool = False) -> None:
        assert a.token_ids == b.token_ids
        assert a.text == b.text
        assert a.logprobs is not None
        assert b.logprobs is not None
        tolerance = max(self.pieces, self.tolerance) if pieces else self.tolerance
        assert a.logprobs == (pytest.approx(b.logprobs, abs=tolerance) if tolerance else b.logprobs)

    async def clear(self) -> None:
        """Drop all names, and see that nothing is left."""
        for state in await self.store.saved():
            await self.store.drop(state.saved.name)
        assert await self.store.saved() == []
        assert self.partial() == []

    def partial(self) -> list[Path]:
        return list(self.root.rglob(".partial*")) if self.root.exists() else []


def test_the_model_says_that_it_pins(bench: Bench) -> None:
    assert bench.model.capabilities.pins
    assert bench.model.capabilities.has("pins")
    assert isinstance(bench.model, SupportsKVStore)
    assert isinstance(bench.store, KVStore)


async def test_saving_pins_and_writes(bench: Bench) -> None:
    made = await bench.store.save("rules", bench.prompt)
    count = bench.tokens(bench.prompt)
    assert made.saved.name == "rules"
    assert len(made.saved.token_ids) == count
    assert bench.reusable(count + 1) <= made.saved.stored <= count
    assert made.usage.prompt_tokens == count
    assert made.saved.identity == bench.model.identity
    state = await bench.state("rules")
    assert state is not None
    assert state.saved == made.saved
    assert state.pinned
    assert state.directory is not None
    assert state.used_at > 0
    assert sum((state.directory / f.name).stat().st_size for f in made.saved.files) == made.saved.nbytes > 0


async def test_saving_the_same_again_computes_nothing(bench: Bench) -> None:
    first = await bench.store.save("rules", bench.prompt)
    again = await bench.store.save("rules", bench.prompt)
    assert again.saved == first.saved
    assert again.usage.cached_tokens == again.usage.prompt_tokens == first.usage.prompt_tokens
    assert again.usage.completion_tokens == 0


async def test_a_pinned_prompt_is_not_computed_again_and_says_the_same(bench: Bench) -> None:
    await bench.fresh()
    without = await bench.reply(bench.prompt)
    await bench.fresh()
    await bench.store.save("rules", bench.prompt)
    await bench.push_out(bench.model)
    pinned = await bench.reply(bench.prompt)
    assert pinned.usage.cached_tokens >= bench.reusable(bench.tokens(bench.prompt))
    bench.same(pinned, without)


async def test_what_is_not_pinned_is_pushed_out(bench: Bench) -> None:
    """Without this the test before would pass with pins that do nothing."""
    await bench.fresh()
    await bench.reply(bench.prompt)
    await bench.push_out(bench.model)
    assert (await bench.reply(bench.prompt)).usage.cached_tokens == 0


async def test_a_fresh_engine_restores_a_prefix_and_says_the_same(bench: Bench) -> None:
    saved = (await bench.store.save("rules", bench.prompt)).saved
    await bench.fresh()
    state = await bench.state("rules")
    assert state is not None
    assert (state.saved, state.pinned) == (saved, False)
    without = await bench.reply(bench.prompt)
    await bench.fresh()
    back = await bench.store.restore("rules")
    assert back.saved == saved
    state = await bench.state("rules")
    assert state is not None
    assert state.pinned
    restored = await bench.reply(bench.prompt)
    assert restored.usage.cached_tokens >= bench.reusable(bench.tokens(bench.prompt))
    bench.same(restored, without)
    await bench.push_out(bench.model)
    held = await bench.reply(bench.prompt)
    assert held.usage.cached_tokens >= bench.reusable(bench.tokens(bench.prompt))
    assert (await bench.store.restore("rules")).saved == saved


async def test_saving_in_a_fresh_engine_restores_what_is_on_disk(bench: Bench) -> None:
    saved = (await bench.store.save("rules", bench.prompt)).saved
    await bench.fresh()
    again = await bench.store.save("rules", bench.prompt)
    assert again.saved == saved
    assert again.usage.cached_tokens >= bench.reusable(bench.tokens(bench.prompt))


async def test_a_changed_prompt_takes_over_what_it_still_has_in_common(bench: Bench) -> None:
    text = bench.prompt.text
    assert text is not None
    changed = Prompt(text=text[: len(text) // 2] + "Quite another story begins here, with a fox. " * 3)
    await bench.fresh()
    without = await bench.reply(changed)
    await bench.fresh()
    saved = (await bench.store.save("rules", bench.prompt)).saved
    reply = await bench.reply(changed)
    assert 0 < reply.usage.cached_tokens <= bench.tokens(Prompt(text=text[: len(text) // 2])) < len(saved.token_ids)
    bench.same(reply, without, pieces=True)


async def test_a_file_that_is_lost_is_written_again(bench: Bench) -> None:
    saved = (await bench.store.save("rules", bench.prompt)).saved
    state = await bench.state("rules")
    assert state is not None
    assert state.directory is not None
    _lose(state.directory)
    again = await bench.store.save("rules", bench.prompt)
    assert again.usage.cached_tokens >= bench.reusable(len(saved.token_ids))
    await bench.fresh()
    assert (await bench.store.restore("rules")).saved == again.saved


async def test_another_prompt_takes_the_place_of_the_first(bench: Bench) -> None:
    await bench.store.save("rules", bench.prompt)
    other = Prompt(text="Another beginning altogether, longer than a block of tokens. " * 3)
    second = (await bench.store.save("rules", other)).saved
    assert [s.saved for s in await bench.store.saved()] == [second]
    await bench.fresh()
    assert (await bench.store.restore("rules")).saved == second


async def test_a_fork_is_another_name_for_the_same_tokens(bench: Bench) -> None:
    first = (await bench.store.save("rules", bench.prompt)).saved
    fork = await bench.store.fork("rules", "rules.copy")
    assert fork.saved.token_ids == first.token_ids
    assert fork.usage.cached_tokens >= bench.reusable(len(first.token_ids))
    await bench.store.drop("rules")
    await bench.push_out(bench.model)
    reply = await bench.reply(bench.prompt)
    assert reply.usage.cached_tokens >= bench.reusable(bench.tokens(bench.prompt))


@pytest.mark.parametrize("only_on_disk", [False, True])
async def test_a_fork_computes_its_further_tokens_only(bench: Bench, only_on_disk: bool) -> None:
    first = (await bench.store.save("rules", bench.prompt)).saved
    more = tuple(first.token_ids[:40])
    if only_on_disk:
        await bench.fresh()
    fork = await bench.store.fork("rules", "longer", more)
    assert fork.saved.token_ids == (*first.token_ids, *more)
    assert fork.usage.prompt_tokens == len(first.token_ids) + 40
    assert bench.reusable(len(first.token_ids)) <= fork.usage.cached_tokens <= len(first.token_ids)
    longer = bench.prompt.with_prefix(more)
    hit = await bench.reply(longer)
    assert hit.usage.cached_tokens >= bench.reusable(len(fork.saved.token_ids))
    await bench.fresh()
    bench.same(hit, await bench.reply(longer), pieces=True)
    by_text = await bench.store.fork("rules", "by-text", " And then?")
    assert len(by_text.saved.token_ids) > len(first.token_ids)
    assert {s.saved.name for s in await bench.store.saved()} == {"rules", "longer", "by-text"}


async def test_dropping_forgets_the_name_in_memory_and_on_disk(bench: Bench) -> None:
    await bench.store.save("rules", bench.prompt)
    state = await bench.state("rules")
    assert state is not None
    assert state.directory is not None
    await bench.store.drop("rules")
    assert await bench.store.saved() == []
    assert not state.directory.exists()
    await bench.push_out(bench.model)
    assert (await bench.reply(bench.prompt)).usage.cached_tokens == 0
    with pytest.raises(UnknownName):
        await bench.store.drop("rules")


async def test_dropping_the_pin_alone_keeps_the_file(bench: Bench) -> None:
    saved = (await bench.store.save("rules", bench.prompt)).saved
    await bench.store.drop("rules", keep_file=True)
    state = await bench.state("rules")
    assert state is not None
    assert not state.pinned
    await bench.push_out(bench.model)
    assert (await bench.reply(bench.prompt)).usage.cached_tokens == 0
    assert (await bench.store.restore("rules")).saved == saved
    assert (await bench.reply(bench.prompt)).usage.cached_tokens > 0


async def test_an_unknown_name_is_refused_with_those_like_it(bench: Bench) -> None:
    await bench.store.save("rules", bench.prompt)
    for act in (
        bench.store.restore("rule"),
        bench.store.fork("rule", "other"),
        bench.store.drop("rule"),
        bench.store.drop("rule", keep_file=True),
    ):
        with pytest.raises(UnknownName, match="rules") as caught:
            await act
        assert caught.value.kind == "prefix"
    assert [s.saved.name for s in await bench.store.saved()] == ["rules"]


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "a/b", "a\\b", ".x", "x.", "A", "a b", "nul", "com1.x", "a" * 81, "ä"]
)
async def test_a_name_that_is_no_name_is_refused(bench: Bench, name: str) -> None:
    for act in (
        bench.store.save(name, bench.prompt),
        bench.store.restore(name),
        bench.store.fork(name, "x"),
        bench.store.fork("x", name),
        bench.store.drop(name),
    ):
        with pytest.raises(UserError, match="cannot name a prefix"):
            await act


async def test_a_fork_to_its_own_name_and_a_token_that_is_none_are_refused(bench: Bench) -> None:
    await bench.store.save("rules", bench.prompt)
    with pytest.raises(UserError, match="own name"):
        await bench.store.fork("rules", "rules", (1,))
    with pytest.raises(UserError, match="vocabulary"):
        await bench.store.fork("rules", "other", (1 << 30,))
    assert [s.saved.name for s in await bench.store.saved()] == ["rules"]


def _flip(directory: Path) -> None:
    path = next(directory.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(directory: Path) -> None:
    path = next(directory.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-7])


def _lose(directory: Path) -> None:
    next(directory.glob("*.safetensors")).unlink()


def _scribble(directory: Path) -> None:
    (directory / "prefix.json").write_text("{")


def _claim(**changes: Any) -> Callable[[Path], None]:
    def tamper(directory: Path) -> None:
        path = directory / "prefix.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return tamper


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        pytest.param(_flip, "SHA-256", id="a flipped bit"),
        pytest.param(_cut, "bytes instead of", id="cut short"),
        pytest.param(_lose, "missing", id="a file lost"),
        pytest.param(_scribble, "cannot be read", id="a broken description"),
        pytest.param(_claim(identity="other+bf16", model="local/other"), "local/other", id="another model"),
        pytest.param(_claim(dtype="float8_e5m2"), "float8_e5m2", id="another number format"),
        pytest.param(_claim(layout="strange/9"), "strange/9", id="another layout"),
        pytest.param(_claim(name="else"), "contradicts", id="another name"),
        pytest.param(_claim(files=[]), "contradicts", id="no file"),
        pytest.param(
            _claim(files=[{"name": "../../x.safetensors", "nbytes": 1, "sha256": ""}]), "contradicts", id="a path"
        ),
        pytest.param(_claim(more=1), "cannot be read", id="an unknown field"),
    ],
)
async def test_damaged_files_are_refused_and_can_be_saved_again(
    bench: Bench, tamper: Callable[[Path], None], said: str
) -> None:
    await bench.store.save("rules", bench.prompt)
    state = await bench.state("rules")
    assert state is not None
    assert state.directory is not None
    await bench.store.drop("rules", keep_file=True)
    tamper(state.directory)
    with pytest.raises(DataError, match="rules") as caught:
        await bench.store.restore("rules")
    assert said in caught.value.message
    assert "save it again" in caught.value.hint
    assert not any(s.pinned for s in await bench.store.saved())
    mended = await bench.store.save("rules", bench.prompt)
    assert (await bench.state("rules")).saved == mended.saved  # type: ignore[union-attr]
    await bench.fresh()
    assert (await bench.store.restore("rules")).saved == mended.saved


async def test_another_models_name_is_not_taken_for_ones_own(bench: Bench) -> None:
    """Another model's prefix is neither listed nor replaced, and restoring it names its model."""
    await bench.store.save("rules", bench.prompt)
    state = await bench.state("rules")
    assert state is not None
    assert state.directory is not None
    theirs = bench.root / "0123456789abcdef" / "rules"
    await bench.store.drop("rules", keep_file=True)
    theirs.parent.mkdir()
    state.directory.rename(theirs)
    _claim(identity="other+bf16", model="local/other")(theirs)
    try:
        assert await bench.store.saved() == []
        with pytest.raises(DataError, match="local/other"):
            await bench.store.restore("rules")
        await bench.store.save("rules", bench.prompt)
        assert theirs.exists()
    finally:
        for path in theirs.iterdir():
            path.unlink()
        theirs.rmdir()
        theirs.parent.rmdir()


async def test_what_exceeds_the_bound_is_refused(bench: Bench) -> None:
    if bench.too_large is None:
        pytest.skip("no prompt is too large to try")
    await bench.store.save("rules", bench.prompt)
    with pytest.raises(PrefixTooLarge, match="huge"):
        await bench.store.save("huge", bench.too_large)
    assert [s.saved.name for s in await bench.store.saved()] == ["rules"]


@pytest.mark.parametrize("turns", [0, 1, 3, 10, 30, 100])
async def test_a_cancelled_save_leaves_all_or_nothing(bench: Bench, turns: int) -> None:
    task = asyncio.create_task(bench.store.save("rules", bench.prompt))
    for _ in range(turns):
        await asyncio.sleep(0.0005)
    task.cancel()
    await asyncio.wait([task])
    assert bench.partial() == []
    states = await bench.store.saved()
    assert all(s.pinned and s.directory is not None for s in states)
    if not task.cancelled():
        assert len(states) == 1
    assert (await bench.reply(bench.prompt)).ok
    await bench.store.save("rules", bench.prompt)
    await bench.fresh()
    await bench.store.restore("rules")


async def test_many_at_once(bench: Bench) -> None:
    names = [f"name-{i}" for i in range(3)]
    made = await asyncio.gather(*(bench.store.save(n, bench.prompt) for n in (*names, *names)))
    assert {m.saved.token_ids for m in made} == {made[0].saved.token_ids}
    assert [s.saved.name for s in await bench.store.saved() if s.pinned] == names
    await asyncio.gather(*(bench.store.drop(n, keep_file=True) for n in names))
    await asyncio.gather(*(bench.store.restore(n) for n in (*names, *names)), bench.reply(bench.prompt))
    assert [s.saved.name for s in await bench.store.saved() if s.pinned] == names


async def test_a_prefix_is_taken_over_under_its_own_salt_only(bench: Bench) -> None:
    prompt = bench.prompt
    complete = bench.reusable(bench.tokens(prompt))
    await bench.store.save("rules", prompt.with_cache_salt("acme"))
    await bench.push_out(bench.model)

    async def reused(salt: str) -> int:
        return (await bench.reply(prompt.with_cache_salt(salt))).usage.cached_tokens

    # one request each: earlier prompts are in the engine's cache anyway
    assert [await reused(salt) for salt in ("acme", "other", "")] == [complete, 0, 0]
    store = await bench.fresh()
    await store.restore("rules", cache_salt="other")
    await bench.push_out(bench.model)
    assert [await reused(salt) for salt in ("other", "acme", "")] == [complete, 0, 0]
    # pinned again under another salt, the name belongs only to that one
    await store.restore("rules", cache_salt="acme")
    await bench.push_out(bench.model)
    assert [await reused(salt) for salt in ("acme", "other")] == [complete, 0]
