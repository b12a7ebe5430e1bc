"""`IndexPlan`: what a saved index is made with, from its first moment on, and whether a model fits it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from ...core.errors import DataError
from ...core.messages import Frozen
from ...serving.embeddings import EmbeddingModel
from .documents import Cutting

PLAN = "plan.json"


class EmbeddedBy(Frozen):
    """The model that made an index's vectors.

    Attributes:
        name: The string that it was opened by.
        identity: Its identity.
        dimension: Numbers of a vector.
    """

    name: str
    identity: str
    dimension: Annotated[int, Field(ge=1)]


class IndexPlan(Frozen):
    """What an index is made with; it stays the same as long as the index lives.

    Attributes:
        cutting: How documents are cut.
        embedding: What makes the vectors; None if there are none.
    """

    cutting: Cutting
    embedding: EmbeddedBy | None


def read_plan(folder: Path) -> IndexPlan | None:
    """What an index, finished or not, is made with; None if there is none.

    Raises:
        DataError: The file is damaged.
    """
    path = folder / PLAN
    try:
        return IndexPlan.model_validate(json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror or e}") from e
    except (ValueError, RecursionError, ValidationError) as e:
        raise DataError(f"{path} is damaged or of no index", hint="build the index anew in another folder") from e


def check_model(folder: Path, made_by: EmbeddedBy | None, embedding: EmbeddingModel | None) -> None:
    """Raises `DataError` unless a model is the one that made an index's vectors."""
    given = None if embedding is None else embedding.name
    if made_by is None and embedding is None:
        return
    if made_by is None:
        raise DataError(
            f"the index {folder} was made without vectors, and the embedding model {given} was given",
            hint="say --no-vectors, or build an index with vectors in a new folder",
        )
    if embedding is None:
        raise DataError(
            f"the index {folder} has vectors of {made_by.name}, and no embedding model was given",
            hint=f"give --embedding-model {made_by.name}, or build an index without vectors in a new folder",
        )
    if (made_by.identity, made_by.dimension) != (embedding.identity, embedding.dimension):
        other = f"another version of {made_by.name}" if made_by.name == given else f"{made_by.name}, not with {given}"
        raise DataError(
            f"the vectors of the index {folder} were made with {other} "
            f"({made_by.identity[:16]} and {embedding.identity[:16]})",
            hint=f"give the model {made_by.name} that made it, or build another index in a new folder",
        )
