"""Checkpoints of an entailment training: one safetensors file, replaced whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue

from ...core.errors import DataError
from ...core.whole_files import write_bytes

if TYPE_CHECKING:
    import torch

FORMAT: Final = 1
_ENTRY = "reason.entailment.checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """A training between two steps.

    Attributes:
        plan: Digest of the plan.
        epoch: The epoch under way, from 0.
        batch: Batches of it that are done.
        steps: Steps in all.
        seconds: Seconds spent so far.
        curve: The learning curve so far.
        tensors: Weights ("w:"), and the optimiser's first ("m:") and second ("v:") moments, by name.
    """

    plan: str
    epoch: int
    batch: int
    steps: int
    seconds: float
    curve: tuple[dict[str, JsonValue], ...]
    tensors: Mapping[str, torch.Tensor]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    from safetensors.torch import save

    told = {name: getattr(checkpoint, name) for name in ("plan", "epoch", "batch", "steps", "seconds", "curve")}
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    write_bytes(path, save(tensors, metadata={_ENTRY: json.dumps({"format": FORMAT, **told})}))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        DataError: There is none, or it is damaged or of another version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        raw = path.read_bytes()
        tensors = load(raw)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        told = json.loads(header["__metadata__"][_ENTRY])
        if told.pop("format") != FORMAT:
            raise DataError(f"{path} is a checkpoint of another version of reason", hint="train anew in another folder")
        return Checkpoint(**{**told, "curve": tuple(told["curve"])}, tensors=tensors)
    except FileNotFoundError as e:
        raise DataError(f"there is no checkpoint {path}", hint="train without --resume") from e
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as e:
        raise DataError(f"the checkpoint {path} is damaged", hint="train anew in another folder") from e
