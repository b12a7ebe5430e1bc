"""Choosing a torch device."""

import pytest
import torch
from reason.core.errors import BackendUnavailable, UserError
from reason.serving.devices import choose_device


def test_auto_is_a_gpu_where_there_is_one(monkeypatch):
    for name in ("cpu", "cpu:3"):
        assert choose_device(name) == torch.device("cpu")
    if torch.cuda.is_available():
        assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", torch.cuda.current_device())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:-1", "cuda:256", "cpu:300"])
def test_what_is_no_device_is_refused_by_name(name):
    with pytest.raises(UserError, match=rf"^device = '{name}'") as caught:
        choose_device(name)
    assert '"cuda:1"' in caught.value.hint


@pytest.mark.parametrize(("built", "why"), [(None, "built without CUDA"), ("13.0", "driver")])
def test_a_gpu_that_is_not_there_is_refused_with_a_remedy(monkeypatch, built, why):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(BackendUnavailable, match=r"^device = 'cuda:1': no GPU") as caught:
        choose_device("cuda:1")
    assert why in caught.value.hint
    assert 'device = "cpu"' in caught.value.hint


def test_available_gpus_are_listed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(BackendUnavailable, match="'cuda:2': torch sees 2 GPUs") as caught:
        choose_device("cuda:2")
    assert caught.value.hint == "they are cuda:0, cuda:1"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("name", ["auto", "cuda", "hpu"])
def test_a_device_that_does_not_compute_is_refused(monkeypatch, name):
    """As with a driver that is seen but too old."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BackendUnavailable, match="cannot compute there") as caught:
        choose_device(name)
    assert caught.value.hint == 'set device = "cpu"'
