"""Choosing the torch device of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import BackendUnavailable, UserError

if TYPE_CHECKING:
    import torch


def choose_device(name: str) -> torch.device:
    """The device of a name, with its index, after a test computation on it.

    Args:
        name: "auto" is a GPU if torch sees one through CUDA, else the CPU; any other is torch's own name: "cpu",
            "cuda", "cuda:1", …

    Raises:
        UserError: torch has no device of that name, or one that computes nothing.
        BackendUnavailable: The device is missing, or does not compute.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise _unknown(name) from e
    if device.type == "meta" or str(device) != name:  # torch counts to 255, and takes "cuda:256" for "cuda:0"
        raise _unknown(name)
    if device.type == "cpu":
        return torch.device("cpu")  # there is only one, whatever its index
    if device.type == "cuda":
        _check_cuda(device)
    try:
        return (torch.zeros(1, device=device) + 1).device
    except (RuntimeError, AssertionError, AttributeError, ImportError) as e:  # depends on the kind of device
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise BackendUnavailable(
            f"device = {name!r}: torch {torch.__version__} cannot compute there: {reason}",
            hint='set device = "cpu"',
        ) from e


def _check_cuda(device: torch.device) -> None:
    import torch

    if not torch.cuda.is_available():
        # Builds for AMD's GPUs use the name CUDA too.
        built = torch.version.cuda is not None or torch.version.hip is not None
        why = "its driver may be missing" if built else "this torch is built without CUDA: install one that has it"
        raise BackendUnavailable(
            f"device = {str(device)!r}: no GPU is visible to torch {torch.__version__}",
            hint=f'{why}, or set device = "cpu"',
        )
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise BackendUnavailable(
            f"device = {str(device)!r}: torch sees {count} GPU{'s' if count > 1 else ''}",
            hint="they are " + ", ".join(f"cuda:{i}" for i in range(count)),
        )


def _unknown(name: str) -> UserError:
    return UserError(
        f"device = {name!r}: torch computes on no such device", hint='one of "auto", "cpu", "cuda", "cuda:1", …'
    )
