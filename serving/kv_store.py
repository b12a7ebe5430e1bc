"""`KVStore`: keys and values of prompts saved under names, in an engine's memory and on disk.

A program that sends many prompts with one long beginning saves it once:

    await kv_store_of(model).save("rules", Prompt.user(rules))

Every later prompt that begins with the same tokens reuses their keys and values, whatever else the engine computes in
between and also after a restart. That changes what is computed, never the result. A prompt is matched by its tokens,
never by the name: one that has changed reuses what it still has in common. Prompts reuse only what was pinned under
their own salt; a name is pinned under one salt at a time.

A name belongs to one model with one number format: two models may use the same name. A prefix that is *pinned* stays
in the engine, which does not evict it; one that is *on disk* outlives the process. `save` does both, `restore` pins
what is on disk, `drop` ends one or both.

Files are JSON and safetensors, and are never trusted: before a prefix is restored, its SHA-256 checksums, its model,
its number format and its layout are checked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol, runtime_checkable

from ..core.errors import CapabilityMissing, UserError
from ..core.messages import Frozen, Prompt, Usage
from .model import LanguageModel

MAX_NAME_LENGTH = 80
NAME_RULE = (
    f"1 to {MAX_NAME_LENGTH} of a-z, 0-9, '.', '_' and '-', the first and last a letter or digit, "
    "and no reserved file name"
)
"""What a name may be: safe as a file name on every system, and no two of which are equal where case is ignored."""

_NAME = re.compile(rf"[a-z0-9](?:[a-z0-9._-]{{0,{MAX_NAME_LENGTH - 2}}}[a-z0-9])?")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?")


class PayloadFile(Frozen):
    """A file with keys and values, in the directory of its prefix.

    Attributes:
        name: Its name; ends in `.safetensors`.
        nbytes: Its size.
        sha256: Checksum of its bytes, in hexadecimal.
    """

    name: str
    nbytes: int
    sha256: str


class SavedPrefix(Frozen):
    """A named prefix, as it is described on disk.

    Attributes:
        token_ids: Its tokens, template included.
        stored: How many of them, from the first, have their keys and values in the files: all of them in the embedded
            engine, the full blocks in vLLM.
        model: Name of the model that computed them, for messages.
        identity: Identity of that model (`LanguageModel.identity`): weights and their number format.
        dtype: Number format of the keys and values, as torch names it: "float32", "bfloat16".
        layout: Arrangement of the tensors and its version, for example "local/1".
        files: The files.
    """

    name: str
    token_ids: tuple[int, ...]
    stored: int
    model: str
    identity: str
    dtype: str
    layout: str
    files: tuple[PayloadFile, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all files with keys and values."""
        return sum(f.nbytes for f in self.files)


class PrefixState(Frozen):
    """A named prefix and its state.

    Attributes:
        saved: The prefix.
        pinned: Whether this engine has pinned it.
        directory: Its directory; None if it is only pinned (it was evicted from disk, or dropped by another process).
        used_at: When it was last saved or restored, in seconds since 1970; 0 if it is only pinned.
    """

    saved: SavedPrefix
    pinned: bool
    directory: Path | None
    used_at: float


class PinResult(Frozen):
    """What `save`, `restore` and `fork` return.

    Attributes:
        saved: The prefix, which is now pinned.
        usage: What it cost: `prompt_tokens` are the prefix's, `cached_tokens` those of them that were not computed.
            `completion_tokens` is 0, or 1 or 2 in an engine that cannot compute a prompt without a token after it.
    """

    saved: SavedPrefix
    usage: Usage


class PrefixTooLarge(UserError):
    """A prefix exceeds the limit on disk, or pinned prefixes would use too much of the engine's cache."""

    code = "prefix_too_large"


@runtime_checkable
class KVStore(Protocol):
    """Named prefixes of one model.

    All methods may be called concurrently. Cancelling the awaiting task leaves the name as it was before or, if it came
    too late, as it was to be; never a partial file. Several processes may share a directory. Disk work is done off the
    event loop. Names follow `NAME_RULE`.
    """

    async def save(self, name: str, prompt: Prompt) -> PinResult:
        """Compute a prompt's keys and values where they are missing, pin them, and write them to disk.

        If the name has exactly these tokens already, nothing is computed: it is restored if it was not pinned, and
        written again if it was no longer on disk. If it has others, or its files are damaged, it is replaced.

        To free disk space, names that this engine has not pinned are removed, of whatever model, the least recently
        used first.

        Args:
            prompt: What later prompts will begin with; rendered as for `generate`, template and prefix included.

        Raises:
            UserError: The name is not allowed, or the directory must not be written.
            PrefixTooLarge: It exceeds the limit on disk, even with every other unpinned name removed, or the engine's
                cache cannot pin that much.
            ContextTooLong: The prompt does not fit the model.
            BackendUnavailable: The disk is full.
            BackendError: The engine failed.
        """

    async def restore(self, name: str, *, cache_salt: str = "") -> PinResult:
        """Bring a prefix from disk into the engine and pin it. Nothing is done if it is pinned under the salt.

        Args:
            cache_salt: Only prompts with the same one reuse it (`Prompt.cache_salt`).

        Raises:
            UserError: The name is not allowed.
            UnknownName: Nothing is saved under it.
            DataError: The files are damaged or cut short, or were written by another model, number format or layout;
                names which, and what to do. Nothing is pinned.
            PrefixTooLarge: The engine's cache cannot pin that much.
        """

    async def fork(
        self, name: str, new_name: str, more: str | tuple[int, ...] = (), *, cache_salt: str = ""
    ) -> PinResult:
        """Pin and save another name for the same tokens and, optionally, further ones.

        The common part is not computed again. A name that is only on disk is restored first. An existing `new_name` is
        replaced.

        Args:
            more: Tokens to append; a text is tokenized by itself, so that at the seam its tokens may differ from those
                of the complete text (a prompt shares what comes before the seam). Give token ids where that matters.
            cache_salt: As for `restore`.

        Raises:
            UserError: A name is not allowed, both are the same, or a token is not in the vocabulary.
            UnknownName: `name` is neither pinned nor on disk.
            ReasonError: What `restore` and `save` raise.
        """

    async def drop(self, name: str, *, keep_file: bool = False) -> None:
        """Remove a prefix: its pin and its files. Running requests that use it continue.

        Args:
            keep_file: Whether the files stay, so that it can be restored.

        Raises:
            UserError: The name is not allowed.
            UnknownName: It is neither pinned nor on disk.
        """

    async def saved(self) -> list[PrefixState]:
        """The prefixes of this model, by name: pinned, on disk, or both. Unreadable descriptions are left out."""


@runtime_checkable
class SupportsKVStore(Protocol):
    """A model with named prefixes: one whose `capabilities.pins` is true."""

    @property
    def kv_store(self) -> KVStore:
        """Its named prefixes."""


def kv_store_of(model: LanguageModel) -> KVStore:
    """The named prefixes of a model.

    Raises:
        CapabilityMissing: It has none. Where a prefix is saved only for speed, check `capabilities.pins` first and
            continue without: the results are the same.
    """
    if model.capabilities.pins and isinstance(model, SupportsKVStore):
        return model.kv_store
    raise CapabilityMissing("pins", model.name)


def check_name(name: str) -> str:
    """The name, if it is allowed.

    Raises:
        UserError: It is not.
    """
    if not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
        shown = repr(name) if len(name) <= 100 else repr(name[:97]) + "…"
        raise UserError(f"{shown} cannot name a prefix", hint=f"a name is {NAME_RULE}")
    return name
