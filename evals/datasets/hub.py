"""Datasets on the Hugging Face hub, through the package `datasets`, each at one commit."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from ...core.errors import BackendUnavailable, DataError, UserError
from .rows import RawRow

TIMEOUT_S = 10.0
"""Longest wait for the hub's first word, in seconds."""


@dataclass(frozen=True)
class HubSource:
    """A dataset on the hub.

    Attributes:
        repo: Its id.
        split: Which split.
        config: Which configuration; None is the only one.
        revision: The commit that is read; empty where none is pinned, and then the newest is read and recorded.
        gated: Whether one must accept terms and log in.
    """

    repo: str
    split: str
    config: str | None = None
    revision: str = ""
    gated: bool = False


def read_hub(source: HubSource, *, revision: str = "", split: str = "") -> tuple[Iterator[RawRow], str]:
    """The records of a dataset and the commit they are from.

    Args:
        source: Where it lies.
        revision: Another commit, branch or tag.
        split: Another split.

    Raises:
        UserError: The package `datasets` is not installed, or the hub asks for an account.
        BackendUnavailable: The hub cannot be reached; with `HF_HUB_OFFLINE=1`, nothing is cached.
        DataError: The hub has no such dataset, split or commit, or its files cannot be read.
    """
    datasets, hub = _packages()
    wanted, split = revision or source.revision, split or source.split
    name = f"{source.repo} on the Hugging Face hub"
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    commit = wanted if offline else _commit(hub, source, wanted, name)
    try:
        table = datasets.load_dataset(source.repo, source.config, split=split, revision=commit or None)
    except Exception as e:  # the package raises whatever its readers raise
        if offline:
            raise BackendUnavailable(
                f"{name} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it", hint=_hint(source)
            ) from e
        raise DataError(f"cannot read {name}: {type(e).__name__}: {_line(e)}", hint=_hint(source)) from e
    where = f"{source.repo}@{commit[:12]} {split}" if commit else f"{source.repo} {split}"
    return _rows(table, source.repo, where), commit


def _packages() -> tuple[Any, Any]:
    try:
        return importlib.import_module("datasets"), importlib.import_module("huggingface_hub")
    except ImportError as e:
        raise UserError(
            f"reading from the Hugging Face hub needs the package {e.name!r}",
            hint="pip install 'reason-orchestrator[eval]'; or give a local file with --data",
        ) from e


def _commit(hub: Any, source: HubSource, wanted: str, name: str) -> str:
    """The commit meant. It is asked for first, since the package itself would try an unreachable hub for minutes."""
    errors = importlib.import_module("huggingface_hub.errors")
    try:
        found = hub.HfApi().dataset_info(source.repo, revision=wanted or None, timeout=TIMEOUT_S)
    except errors.GatedRepoError as e:
        raise UserError(f"{name} wants you to accept its terms", hint=_hint(source)) from e
    except errors.RevisionNotFoundError as e:
        raise DataError(f"{name} has no revision {wanted!r}", hint=_hint(source)) from e
    except errors.RepositoryNotFoundError as e:
        raise DataError(f"there is no {name}, or it is private", hint=_hint(source)) from e
    except Exception as e:  # each version raises its HTTP client's own errors
        raise BackendUnavailable(
            f"{name} cannot be reached: {_line(e)}",
            hint="give a local copy with --data FILE; or, if it was fetched before, set HF_HUB_OFFLINE=1",
        ) from e
    return str(found.sha)


def _hint(source: HubSource) -> str:
    terms = f"accept the terms at huggingface.co/datasets/{source.repo} and run `hf auth login`; or " * source.gated
    return f"{terms}give a local copy with --data FILE"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _rows(table: Any, repo: str, where: str) -> Iterator[RawRow]:
    features = table.features
    for i, record in enumerate(table, 1):
        values = {str(k): _plain(v, features.get(k)) for k, v in record.items()}
        yield RawRow(values, f"{where} row {i}", i, repo)


def _plain(value: Any, feature: Any) -> JsonValue:
    """A value as JSON has it; numbers of classes become the classes' names."""
    names = getattr(feature, "int2str", None)
    if names is not None and isinstance(value, int):
        return str(names(value)) if value >= 0 else None
    if isinstance(value, dict):
        fields = feature if isinstance(feature, dict) else {}
        return {str(k): _plain(v, fields.get(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        entry = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
        return [_plain(v, entry) for v in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)
