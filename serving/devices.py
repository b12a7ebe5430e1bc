"""Where a model is computed: from the name of a device to torch's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import BackendUnavailable, UserError

if TYPE_CHECKING:
    import torch


def choose_device(name: str, setting: str = "device") -> torch.device:
    """The device of a name, after one number was computed on it.

    Args:
        name: "auto" is a GPU if torch sees one through CUDA, else the processor; any other is torch's own name: "cpu",
            "cuda", "cuda:1", …
        setting: What it was set by, for messages.

    Returns:
        The device; of several alike the one that is meant, with its number.

    Raises:
        UserError: torch knows no device of that name, or one that computes no numbers.
        BackendUnavailable: It is not there, or does not compute.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise _unknown(name, setting) from e
    if device.type == "meta" or str(device) != name:  # torch counts to 255, and takes "cuda:256" for "cuda:0"
        raise _unknown(name, setting)
    if device.type == "cpu":
        return torch.device("cpu")  # there is one, whatever its number
    if device.type == "cuda":
        _check_cuda(device, setting)
    try:
        return (torch.zeros(1, device=device) + 1).device
    except (RuntimeError, AssertionError, AttributeError, ImportError) as e:  # by kind of device, for the same
        said = (str(e).splitlines() or [type(e).__name__])[0]
        raise BackendUnavailable(
            f"{setting} = {name!r}: torch {torch.__version__} cannot compute there: {said}",
            hint=f'set {setting} = "cpu"',
        ) from e


def _check_cuda(device: torch.device, setting: str) -> None:
    import torch

    if not torch.cuda.is_available():
        # Builds for AMD's GPUs go by the name of CUDA too.
        built = torch.version.cuda is not None or torch.version.hip is not None
        why = "its driver may be missing" if built else "this torch is built without CUDA: install one that has it"
        raise BackendUnavailable(
            f"{setting} = {str(device)!r}: no GPU is visible to torch {torch.__version__}",
            hint=f'{why}, or set {setting} = "cpu"',
        )
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise BackendUnavailable(
            f"{setting} = {str(device)!r}: torch sees {count} GPU{'s' if count > 1 else ''}",
            hint="they are " + ", ".join(f"cuda:{i}" for i in range(count)),
        )


def _unknown(name: str, setting: str) -> UserError:
    return UserError(
        f"{setting} = {name!r}: torch computes on no such device", hint='one of "auto", "cpu", "cuda", "cuda:1", …'
    )
