"""Checkpoints of a training: one `.npz` file, replaced whole or not at all, from which it goes on bit for bit.

Arrays are the learner's weights, moments and transitions. Everything else is JSON in one of them: numbers that Python
wrote are read back as they were. Nothing is pickled.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue, ValidationError

from ...core.errors import DataError
from ...core.whole_files import write_bytes
from .trainer import Progress

FORMAT = 1
_META = "checkpoint"
_LEARNER = "learner/"


@dataclass(frozen=True)
class Checkpoint:
    """A training between two rounds.

    Attributes:
        plan: Digest of the plan.
        learner: The learner's state.
        progress: Where the episodes stand.
        validated: Episodes before the last validation; -1 if there was none.
        validations: Lines of the validations' file.
        identities: What each model is, by role.
    """

    plan: str
    learner: Mapping[str, NDArray[Any] | JsonValue]
    progress: Progress
    validated: int
    validations: int
    identities: Mapping[str, str]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint, whole or not at all; it is on the disk when this returns.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    arrays = {_LEARNER + name: value for name, value in checkpoint.learner.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in checkpoint.learner.items() if not isinstance(value, np.ndarray)}
    meta = {
        "format": FORMAT,
        "plan": checkpoint.plan,
        "learner": plain,
        "progress": checkpoint.progress.model_dump(mode="json"),
        "validated": checkpoint.validated,
        "validations": checkpoint.validations,
        "identities": dict(checkpoint.identities),
    }
    buffer = io.BytesIO()
    arrays[_META] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    np.savez(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        DataError: There is none, or it is damaged or of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop(_META).tobytes())
        if meta["format"] != FORMAT:
            raise DataError(f"{path} is a checkpoint of another version of reason", hint="train anew in another folder")
        learner = {name.removeprefix(_LEARNER): array for name, array in arrays.items()}
        return Checkpoint(
            plan=meta["plan"],
            learner={**meta["learner"], **learner},
            progress=Progress.model_validate(meta["progress"]),
            validated=int(meta["validated"]),
            validations=int(meta["validations"]),
            identities=dict(meta["identities"]),
        )
    except FileNotFoundError as e:
        raise DataError(f"there is no checkpoint {path}", hint="train without --resume") from e
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, ValidationError) as e:
        raise DataError(f"the checkpoint {path} is damaged", hint="train anew in another folder") from e
