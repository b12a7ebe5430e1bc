"""Which device a model is put on: settings, what is refused, what follows from the device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from reason.core.errors import BackendUnavailable, CapabilityMissing, UserError
from reason.core.settings import Settings, load_settings
from reason.serving.devices import choose_device
from reason.serving.factory import load_model
from reason.serving.local.attention import CUDA_ALIGNMENT, align_mask
from reason.serving.local.engine import LocalModel
from reason.serving.local.hardware import default_kv_bytes, native_format
from reason.serving.local.model import Decoder
from reason.serving.local.weights import PlainLinear
from reason.serving.model_files.find import ModelFiles
from support.fake_device import PRETENDED, brought, pretending

NOWHERE = "cuda:63"
"""A GPU that no machine has."""


def test_the_default_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().local.device == "cpu"
    monkeypatch.setenv("REASON_LOCAL__DEVICE", "cuda:1")
    assert load_settings().local.device == "cuda:1"
    for name in ("GPU", "cuda:", "cuda:one", "", "cuda 1"):
        monkeypatch.setenv("REASON_LOCAL__DEVICE", name)
        with pytest.raises(UserError, match=r'local\.device = .*"cuda:1"'):
            load_settings()


async def test_the_setting_reaches_the_engine(tmp_path: Path, tiny_directory: Callable[[str], Path]) -> None:
    settings = Settings(cache_dir=tmp_path, local={"device": NOWHERE})
    with pytest.raises(BackendUnavailable, match=rf"local\.device = '{NOWHERE}'"):
        await load_model(f"local/{tiny_directory('llama')}", settings)


def test_auto_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cpu", "cpu:3"):
        assert choose_device(name) == torch.device("cpu")
    if torch.cuda.is_available():
        assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", torch.cuda.current_device())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:-1", "cuda:256", "cpu:300"])
def test_what_is_no_device_is_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=rf"^local\.device = '{name}'") as caught:
        choose_device(name, "local.device")
    assert '"cuda:1"' in caught.value.hint


@pytest.mark.parametrize(("built", "why"), [(None, "built without CUDA"), ("13.0", "driver")])
def test_a_gpu_that_is_not_there_is_refused_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, built: str | None, why: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(BackendUnavailable, match=r"^local\.device = 'cuda:1': no GPU") as caught:
        choose_device("cuda:1", "local.device")
    assert why in caught.value.hint
    assert 'local.device = "cpu"' in caught.value.hint


def test_available_gpus_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(BackendUnavailable, match="'cuda:2': torch sees 2 GPUs") as caught:
        choose_device("cuda:2")
    assert caught.value.hint == "they are cuda:0, cuda:1"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("name", ["auto", "cuda", "hpu"])
def test_a_device_that_does_not_compute_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As with a driver that is seen but too old."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BackendUnavailable, match="cannot compute there") as caught:
        choose_device(name)
    assert caught.value.hint == 'set device = "cpu"'


def test_an_engine_without_its_device_is_not_begun(tiny_files: Callable[[str], ModelFiles]) -> None:
    with pytest.raises(BackendUnavailable, match=NOWHERE):
        LocalModel.load(tiny_files("llama"), device=NOWHERE)


def test_number_format_and_cache_follow_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(device))
    for able, chosen in ((True, "bf16"), (False, "fp32")):
        # A GPU that only emulates bf16 counts as one that has it not.
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, able=able: able)
        assert native_format(gpu) == chosen
    assert native_format(torch.device("mps")) == "fp32"
    free = {gpu: 8 << 30, torch.device("cuda", 0): 100 << 20}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device], 80 << 30))
    assert [default_kv_bytes(device) for device in free] == [2 << 30, 64 << 20]


def test_four_bits_are_the_processors_only(tiny_directory: Callable[[str], Path]) -> None:
    with pytest.raises(CapabilityMissing, match="int4") as caught:
        Decoder.load(tiny_directory("llama"), "int4", PRETENDED)
    assert "weight_format='bf16'" in caught.value.hint


@pytest.mark.parametrize("weight_format", ["fp32", "bf16"])
def test_nothing_of_a_model_stays_behind(tiny_directory: Callable[[str], Path], weight_format: str) -> None:
    with pretending(), torch.inference_mode():
        decoder = Decoder.load(tiny_directory("qwen2"), weight_format, PRETENDED)  # type: ignore[arg-type]
        assert decoder.device == PRETENDED
        assert all(
            brought(kv).shape[2] == 64 for log in (decoder.new_kv_cache(10), decoder.new_block()) for kv in log.kv
        )
        kept: list[object] = [*vars(decoder).values(), *(x for layer in decoder._layers for x in vars(layer).values())]
        parts = [x for x in kept if hasattr(x, "__dict__") and not isinstance(x, torch.Tensor)]
        kept += [x for part in parts for x in vars(part).values()]
        tensors = [x for x in kept if isinstance(x, torch.Tensor)]
        assert len(tensors) > 20
        for tensor in tensors:
            brought(tensor)
        assert any(isinstance(x, PlainLinear) for x in kept)


def test_on_the_pretended_device_nothing_mixes() -> None:
    """What the tests of this directory rely on: it refuses what a GPU would refuse, and computes the rest."""
    with pretending(), torch.inference_mode():
        there, here = torch.full((2, 3), 2.0, device=PRETENDED), torch.ones(2, 3)
        for mixed in (
            lambda: there + here,
            lambda: there.add_(here),
            lambda: torch.cat([there, here]),
            lambda: torch.nn.functional.linear(there, here),
            lambda: there[[0, 1]] * 2,
            lambda: there.numpy(),
        ):
            with pytest.raises(RuntimeError, match=r"two devices|without its numbers|numpy"):
                mixed()
        there[torch.tensor([1]), :2] = 5
        there[:, 2:].copy_(here[:, 2:])
        assert (there @ here.to(PRETENDED).T).cpu().numpy().tolist() == [[5.0, 5.0], [11.0, 11.0]]
        assert brought(there.narrow(0, 1, 1)).tolist() == [[5.0, 5.0, 1.0]]
        with pytest.raises(AssertionError, match="cpu"):
            brought(here)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 17), (12, 24)])
def test_mask_rows_are_aligned_for_cuda_kernels(rows: int, columns: int) -> None:
    mask = torch.randn(1, 1, rows, columns)
    made = align_mask(mask)
    assert torch.equal(made, mask)
    assert made.stride(-1) == 1
    assert not any(stride % CUDA_ALIGNMENT for stride in made.stride()[:-1])
    assert align_mask(made) is made
