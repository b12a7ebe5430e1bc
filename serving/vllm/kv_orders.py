"""What a request asks of our KV connector, and what its two halves tell one another: plain values, without vLLM."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError, model_validator

from ...core.errors import UserError
from ...core.messages import Frozen
from ...core.settings import explain
from ..kv_store import PayloadFile

KEY = "reason"
"""Under this key of a request's and a reply's `kv_transfer_params` lies what is ours."""

LAYOUT_VERSION = 1
"""Raised when the files change their meaning."""


class Ask(Frozen):
    """What a request asks of the connector.

    A server's clients go by names: `save` and `restore`. A program that starts the engine itself keeps the names and
    gives folders instead: `write` and `read`.

    Attributes:
        save: Keep the prompt's keys and values on disk under this name.
        restore: Take what the prompt has in common with the prefix of this name from disk.
        write: Write the prompt's keys and values into this folder, which belongs to an attempt of `PrefixFolder`.
        read: Take keys and values from the prefix in this folder.
        pin: Hold the prompt's blocks under this name once they are computed.
        unpin: Give up what is held under these names.
        describe: Tell how blocks are kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    save: str = ""
    restore: str = ""
    write: str = ""
    read: str = ""
    pin: str = ""
    unpin: tuple[str, ...] = ()
    describe: bool = False

    @model_validator(mode="after")
    def _one_source_and_one_target(self) -> Ask:
        if (self.save and self.write) or (self.restore and self.read):
            raise ValueError("a prefix goes by its name or by its folder, not by both")
        return self

    @property
    def stores(self) -> bool:
        """Whether something is to be written."""
        return bool(self.save or self.write)

    def params(self) -> dict[str, Any]:
        """As `kv_transfer_params`."""
        return {KEY: self.model_dump(mode="json", exclude_defaults=True)}

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Ask:
        """What the `kv_transfer_params` of a request ask.

        Raises:
            UserError: They make no sense.
        """
        try:
            return cls.model_validate(params[KEY])
        except ValidationError as e:
            raise UserError(f"kv_transfer_params.{KEY}: {explain(e, 'field', cls.model_fields)}") from e


class BlockShape(Frozen):
    """How a worker, or all together, keep a block of keys and values.

    Attributes:
        dtype: Number format, as torch calls it.
        layout: What must be equal for its bytes to mean the same elsewhere.
        nbytes: Bytes of a block over all layers.
        refusal: Why blocks cannot be copied; empty if they can.
    """

    dtype: str = ""
    layout: str = ""
    nbytes: int = 0
    refusal: str = ""


class Told(Frozen):
    """What the connector answers, in the reply's `kv_transfer_params`.

    Attributes:
        read_tokens: Tokens whose keys and values were taken from files.
        stored_tokens: Tokens whose keys and values were written; 0 while that is still under way.
        pinned_blocks: Blocks that are held now for `pin`.
        code: Code of what failed; empty if nothing did. A request whose files fail is computed instead.
        message: What failed.
        shape: How the workers together keep a block, if that was asked.
    """

    read_tokens: int = 0
    stored_tokens: int = 0
    pinned_blocks: int = 0
    code: str = ""
    message: str = ""
    shape: BlockShape | None = None

    @classmethod
    def of(cls, params: Mapping[str, Any] | None) -> Told | None:
        """What the `kv_transfer_params` of a reply tell; None if no connector of ours answered."""
        return cls.model_validate(params[KEY]) if params and KEY in params else None


@dataclass(frozen=True)
class ReadOrder:
    """Blocks to be filled from the files of a prefix before this step computes.

    Attributes:
        request: Whose prompt it is.
        folder: Where the files are.
        files: Their sizes and sums.
        tokens: Sum of the tokens that the files belong to (`tokens_sum`).
        first: Block of the files that goes into the first of `blocks`.
        blocks: Numbers of the engine's blocks.
    """

    request: str
    folder: Path
    files: tuple[PayloadFile, ...]
    tokens: str
    first: int
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class WriteOrder:
    """Blocks to be written after this step has computed them."""

    request: str
    folder: Path
    tokens: str
    blocks: tuple[int, ...]


@dataclass
class WorkerReport:
    """What one worker did in a step, or several of them together.

    Attributes:
        written: Workers that have written a request's blocks, by request.
        failed: Code and message of what failed, by request.
    """

    written: dict[str, int] = field(default_factory=dict)
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, other: WorkerReport) -> None:
        """Take the report of another worker in."""
        for request, count in other.written.items():
            self.written[request] = self.written.get(request, 0) + count
        self.failed = {**other.failed, **self.failed}


def file_name(rank: int) -> str:
    """Name of the file of one worker."""
    return f"rank-{rank:04}.safetensors"


def tokens_sum(ids: Sequence[int]) -> str:
    """SHA-256 of tokens. It is written into the files, so that a damaged list of tokens beside them is noticed too."""
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    most = min(len(first), len(second))
    return next((i for i in range(most) if first[i] != second[i]), most)
