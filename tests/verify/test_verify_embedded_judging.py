"""The embedded judge: batches, cancellation, closing; and on its real weights what it must never get wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from reason.core.errors import BackendUnavailable, DataError, UserError
from reason.core.settings import Settings, load_settings
from reason.serving.model_files.find import ModelFiles
from reason.verify.entailment import embedded
from reason.verify.entailment.embedded import EmbeddedEntailment, load_delta, load_embedded, read_encoder
from reason.verify.types import Entailment, Pair
from support.entailment_pairs import SWAPPED
from support.tiny_encoder import write_tiny_encoder
from train import compute_delta, init_head, serialize_delta

PAIRS = [Pair("text " * n, f"claim {n}", "title" if n % 2 else "") for n in (3, 1, 9, 0, 5)]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny encoder that is found in place of MiniLM; returns the file of a change of it."""
    folder = write_tiny_encoder(tmp_path / "encoder")

    def find_encoder(name: str, **_: object) -> ModelFiles:
        assert name == embedded.MODELS["small"].encoder
        return ModelFiles(name, folder, "f" * 64, "test")

    monkeypatch.setattr("reason.serving.encoders.files.find_encoder", find_encoder)
    weights, config = read_encoder(folder)
    draw = torch.Generator().manual_seed(2)
    head = {n: 0.3 * torch.randn(t.shape, generator=draw) for n, t in init_head(config, 0).items()}
    after = {n: t + 0.02 * torch.randn(t.shape, generator=draw) for n, t in weights.items() if n != "words"}
    before = {n: t.numpy() for n, t in weights.items()}
    file = tmp_path / "judge.safetensors"
    file.write_bytes(
        serialize_delta(compute_delta(before, {n: t.numpy() for n, t in (after | head).items()}, base="f" * 64))
    )
    return file


async def test_verdicts_are_those_of_the_pairs_whatever_the_batch(tiny):
    one = await load_embedded(Settings(encoders={"judge": {"batch_texts": 1, "dtype": "float32"}}), file=tiny)
    many = await load_embedded(Settings(encoders={"judge": {"batch_texts": 64, "dtype": "float32"}}), file=tiny)
    assert isinstance(one, Entailment)
    assert one.identity == many.identity
    alone, together = await one.judge(PAIRS), await many.judge(PAIRS[::-1])
    for a, b in zip(alone, together[::-1], strict=True):
        assert a is not None
        assert b is not None
        assert a == pytest.approx(b, abs=1e-6)
        assert sum(a) == pytest.approx(1.0, abs=1e-9)
    assert len({tuple(round(p, 4) for p in s) for s in alone if s}) == len(PAIRS)
    assert await one.judge([]) == []
    await one.aclose()
    await one.aclose()
    await many.aclose()
    with pytest.raises(BackendUnavailable, match="closed"):
        await one.judge(PAIRS)


async def test_cancelling_stops_between_two_batches(tiny, monkeypatch):
    judge = await load_embedded(Settings(encoders={"judge": {"batch_texts": 1, "dtype": "float32"}}), file=tiny)
    done = 0
    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    compute = judge._compute

    def counted(rows):
        nonlocal done
        done += 1
        loop.call_soon_threadsafe(begun.set)
        return compute(rows)

    monkeypatch.setattr(judge, "_compute", counted)
    task = asyncio.create_task(judge.judge(PAIRS * 40))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await judge.judge(PAIRS[:1])  # whatever was under way has ended
    assert done < 40
    await judge.aclose()


async def test_identity_names_encoder_and_change_whatever_the_number_format(tiny):
    judges = [
        await load_embedded(Settings(encoders={"judge": {"dtype": dtype}}), file=tiny)
        for dtype in ("float32", "bfloat16")
    ]
    supports = []
    for judge in judges:
        assert judge.identity == f"embedded-2:{'f' * 16}+{load_delta(file=tiny).digest}"
        supports.append(await judge.judge(PAIRS))
        await judge.aclose()
    for exact, rounded in zip(*supports, strict=True):
        assert exact == pytest.approx(rounded, abs=0.02)


async def test_what_does_not_fit_is_refused(tiny, tmp_path):
    with pytest.raises(DataError, match="do not exist"):
        await load_embedded(Settings(), file=tmp_path / "absent.safetensors")
    with pytest.raises(UserError, match="max_tokens"):
        await load_embedded(Settings(encoders={"judge": {"max_tokens": 64}}), file=tiny)
    other = tmp_path / "other.safetensors"
    other.write_bytes(serialize_delta(compute_delta({}, {}, base="e" * 64)))
    with pytest.raises(DataError, match="another encoder|for the encoder"):
        await load_embedded(Settings(), file=other)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings()


async def opened(settings: Settings) -> EmbeddedEntailment:
    """The judge that comes with the package; tests are skipped where its encoder cannot be had."""
    try:
        return await load_embedded(settings)
    except BackendUnavailable as e:
        pytest.skip(f"the encoder cannot be had: {e}")


@pytest.mark.real
async def test_the_shipped_judge_fits_into_ten_megabytes(settings):
    path = Path(embedded.__file__).with_name("small.safetensors")
    assert path.stat().st_size <= 10_000_000
    assert load_delta().card["plan_digest"]


@pytest.mark.real
async def test_swapping_evidence_and_claim_changes_the_verdicts(settings):
    """Invariant 9 of the specification: it guards the order of text and claim."""
    judge = await opened(settings)
    told = await judge.judge(SWAPPED)
    turned = await judge.judge([Pair(p.claim, p.evidence, p.title) for p in SWAPPED])
    labels = [s.label for s in told if s is not None]
    assert labels.count("supports") >= 0.8 * len(SWAPPED)
    assert sum(a != b.label for a, b in zip(labels, turned, strict=True) if b is not None) >= 0.8 * len(SWAPPED)
    await judge.aclose()
