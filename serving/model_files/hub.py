"""Models of a Hugging Face hub, through its own library and its own cache, which other programs share.

A model in that cache is used without a request to the hub. Our own pulls are recorded in our cache, so that the list of
models shows only these.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...core.errors import BackendUnavailable, DataError, ReasonError, UnknownName, UserError
from .checkpoint import check_model_directory
from .conversion import missing_extra
from .downloads import PullTask, disk_errors

_PROBE_S = 3.0
_WANTED = [
    "*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
]
_OFFLINE_HINT = (
    "offline, use local/<directory>, local/<file.gguf>, a model that is in the hub's cache, "
    "or local/smollm2-135m, which comes from the Python index"
)


def hub_directory(
    repository: str,
    cache_dir: Path,
    pulling: PullTask,
    *,
    pull: bool,
    also: Sequence[str] = (),
    check: Callable[[Path], None] = check_model_directory,
) -> tuple[Path, str]:
    """The directory of a hub model and where it came from; downloaded if it is not complete.

    Args:
        repository: `organisation/name`.
        cache_dir: Our cache, where the pull is recorded.
        pulling: Receives the progress; may cancel.
        pull: Whether to fetch what is not here.
        also: Patterns of files in addition to those of a language model.
        check: Raises `DataError` if the directory is not complete.

    Raises:
        UserError: The [local] extra is missing, or the hub's cache must not be written.
        UnknownName: The hub has no such model.
        DataError: The model has no safetensors or no tokenizer.
        BackendUnavailable: The hub cannot be reached, refuses, or the disk is full.
        Cancelled: Cancelled; partial files are removed.
    """
    try:
        from huggingface_hub import constants, snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    source = f"hub {repository}"
    with contextlib.suppress(LocalEntryNotFoundError, DataError):
        directory = Path(snapshot_download(repository, allow_patterns=[*_WANTED, *also], local_files_only=True))
        check(directory)
        _note(repository, directory, cache_dir)
        return directory, source
    if not pull:
        raise BackendUnavailable(
            f"local/{repository} is not on this machine", hint=f"run: reason models pull local/{repository}"
        )
    if constants.HF_HUB_OFFLINE:
        raise BackendUnavailable(
            f"local/{repository} is not in the hub's cache, and HF_HUB_OFFLINE is set", hint=_OFFLINE_HINT
        )
    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    _probe(endpoint, repository)
    hub_cache = Path(constants.HF_HUB_CACHE)
    with disk_errors(hub_cache):
        directory = _download(repository, endpoint, hub_cache, pulling, also)
    check(directory)
    _note(repository, directory, cache_dir)
    return directory, source


def pulled_from_hub(cache_dir: Path) -> list[tuple[str, Path]]:
    """Hub models that were pulled and are still in the hub's cache: repository and directory."""
    entries = []
    for note in sorted((cache_dir / "hub").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            value = json.loads(note.read_text(encoding="utf-8"))
            if (directory := Path(value["directory"])).is_dir():
                entries.append((str(value["repository"]), directory))
    return entries


def remove_from_hub_cache(repository: str, cache_dir: Path) -> int:
    """Remove a model from the hub's cache, with all its revisions.

    Returns:
        Bytes freed.

    Raises:
        UserError: It is not there, or the [local] extra is missing.
    """
    try:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    freed = 0
    with contextlib.suppress(CacheNotFound):
        information = scan_cache_dir()
        revisions = [
            revision.commit_hash
            for entry in information.repos
            if entry.repo_id == repository and entry.repo_type == "model"
            for revision in entry.revisions
        ]
        if revisions:
            strategy = information.delete_revisions(*revisions)
            freed = int(strategy.expected_freed_size)
            strategy.execute()
    note = _note_path(repository, cache_dir)
    if not freed and not note.exists():
        raise UserError(f"local/{repository} is not on this machine", hint="reason models list shows what is")
    note.unlink(missing_ok=True)
    return freed


def _download(repository: str, endpoint: str, hub_cache: Path, pulling: PullTask, also: Sequence[str]) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    complete = False
    try:
        directory = snapshot_download(
            repository,
            allow_patterns=[*_WANTED, *also],
            endpoint=endpoint,
            etag_timeout=_PROBE_S,
            cache_dir=hub_cache,
            tqdm_class=_reporting_bar(pulling),
        )
        complete = True
        return Path(directory)
    except GatedRepoError as e:
        raise BackendUnavailable(
            f"the hub gives {repository} only to those who accepted its terms",
            hint="accept them on the model's page and log in: hf auth login",
        ) from e
    except RepositoryNotFoundError as e:
        raise UnknownName("model", f"local/{repository}", hint="the hub has no such model, or hides it") from e
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError) as e:
        if (reported := _told_by_us(e)) is not None:
            raise reported from e
        reason = str(e).strip().splitlines()
        raise BackendUnavailable(
            f"cannot fetch {repository} from the hub: {reason[0] if reason else type(e).__name__}", hint=_OFFLINE_HINT
        ) from e
    finally:
        if not complete:
            stem = "models--" + repository.replace("/", "--")
            for partial in (hub_cache / stem / "blobs").glob("*.incomplete"):
                partial.unlink(missing_ok=True)


def _told_by_us(error: BaseException | None) -> ReasonError | None:
    """Our own error where the library has wrapped it."""
    while error is not None:
        if isinstance(error, ReasonError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _reporting_bar(pulling: PullTask) -> Any:
    tqdm: Any = importlib.import_module("tqdm").tqdm  # it has no type information

    class ReportingBar(tqdm):  # type: ignore[misc]
        """A progress bar that draws nothing and reports bytes."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._in_bytes = kwargs.get("unit") == "B"
            self._done = int(kwargs.get("initial") or 0)
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})
            self.total = kwargs.get("total")

        def update(self, n: float | None = 1) -> bool | None:
            """Report, or raise `Cancelled` in the thread that downloads."""
            self._done += int(n or 0)
            if self._in_bytes:
                total = int(self.total) if self.total else None
                pulling.report("downloading", self._done, total)
            else:
                pulling.check()
            return None

    return ReportingBar


def _probe(endpoint: str, repository: str) -> None:
    """Ask whether the hub answers at all: its library would try for minutes."""
    import httpx

    try:
        httpx.head(endpoint, timeout=_PROBE_S)
    except (httpx.HTTPError, httpx.InvalidURL) as e:
        host = urlsplit(endpoint).netloc or endpoint
        raise BackendUnavailable(f"cannot reach the hub at {host} to fetch {repository}", hint=_OFFLINE_HINT) from e


def _note_path(repository: str, cache_dir: Path) -> Path:
    return cache_dir / "hub" / f"{repository.replace('/', '--')}.json"


def _note(repository: str, directory: Path, cache_dir: Path) -> None:
    path = _note_path(repository, cache_dir)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"repository": repository, "directory": str(directory)}), encoding="utf-8")
