"""`KVStore`: keys and values of prompts kept under names, in an engine's memory and on disk.

A strategy that asks many questions of one long beginning pins it once:

    await models.main.pin("rules", Prompt.user(rules))

Every later prompt that begins with the same tokens takes their keys and values over, whatever else the engine computes
in between and also after a restart. Pinning changes what is computed, never what comes out of it. A prompt is matched
by its tokens, never by the name: one that has changed takes over what it still has in common. Prompts take over what
was pinned under their own salt alone; a name is pinned under one salt at a time.

A name belongs to one model with one number format: two models may use the same name. It has two lives. *Pinned*, its
keys and values are held by the engine, which does not evict them. *On disk*, they outlive the process. `save` does
both, `restore` goes from disk to pinned, `drop` ends one or both.

What lies on disk is JSON and safetensors, and is never trusted: before a prefix is restored, its SHA-256 sums, its
model, its number format and its layout are checked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol, runtime_checkable

from ..core.errors import CapabilityMissing, UserError
from ..core.messages import Frozen, Prompt, Usage
from .model import LanguageModel

MOST_NAME_CHARS = 80
NAME_RULE = (
    f"1 to {MOST_NAME_CHARS} of a-z, 0-9, '.', '_' and '-', the first and last a letter or digit, "
    "and no reserved file name"
)
"""What a name may be: safe as a file name on every system, and none two of which fall together where case does not
count."""

_NAME = re.compile(rf"[a-z0-9](?:[a-z0-9._-]{{0,{MOST_NAME_CHARS - 2}}}[a-z0-9])?")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?")


class PayloadFile(Frozen):
    """A file with keys and values, beside the description of its prefix.

    Attributes:
        name: Its name in the folder of the prefix; ends in `.safetensors`.
        nbytes: Its size.
        sha256: Sum of its bytes, in hexadecimal.
    """

    name: str
    nbytes: int
    sha256: str


class SavedPrefix(Frozen):
    """A named prefix, as it is described on disk.

    Attributes:
        name: Its name.
        token_ids: Its tokens, template included.
        stored: How many of them, from the first, have their keys and values in the files: all of them in the embedded
            engine, the whole blocks in vLLM.
        model: Name of the model that computed them, for people.
        identity: Identity of that model (`LanguageModel.identity`): weights and their number format.
        dtype: Number format of the keys and values, as torch calls it: "float32", "bfloat16".
        layout: Arrangement of the tensors and its version, for example "local/1". What another one means is not known.
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
    """A named prefix and where it is now.

    Attributes:
        saved: The prefix.
        pinned: Whether this engine holds it.
        folder: Where it lies on disk; None if it is pinned alone (it was evicted there, or dropped by another process).
        used_at: When it was last saved or restored, in seconds since 1970; 0 if it is pinned alone.
    """

    saved: SavedPrefix
    pinned: bool
    folder: Path | None
    used_at: float


class Pinned(Frozen):
    """What `save`, `restore` and `fork` return.

    Attributes:
        saved: The prefix, which is now pinned.
        usage: What it cost: `prompt_tokens` are the prefix's, `cached_tokens` those of them that were not computed.
            `completion_tokens` is 0, or 1 or 2 in an engine that cannot compute a prompt without a token after it.
    """

    saved: SavedPrefix
    usage: Usage


class PrefixTooLarge(UserError):
    """A prefix does not fit the bound on disk, or pinned prefixes would take too much of the engine's cache."""

    code = "prefix_too_large"


@runtime_checkable
class KVStore(Protocol):
    """Named prefixes of one model.

    All methods may be called concurrently. Cancelling the awaiting task leaves the name as it was before or, if it came
    too late, as it was to be; never a partial file. Several processes may share a folder. Disk work is done off the
    event loop. Names follow `NAME_RULE`.
    """

    async def save(self, name: str, prompt: Prompt) -> Pinned:
        """Compute a prompt's keys and values where they are missing, pin them, and write them to disk.

        If the name holds exactly these tokens already, nothing is computed: it is restored if it was not pinned, and
        written again if it was no longer on disk. If it holds others, or its files are damaged, it is replaced.

        To make room on disk, names that this engine has not pinned go, of whatever model, the least recently used
        first.

        Args:
            name: The name.
            prompt: What later prompts will begin with; rendered as for `generate`, template and prefix included.

        Raises:
            UserError: The name is not allowed, or the folder must not be written.
            PrefixTooLarge: It does not fit the bound on disk, not even with every other unpinned name gone, or the
                engine's cache cannot pin that much.
            ContextTooLong: The prompt does not fit the model.
            BackendUnavailable: The disk is full.
            BackendError: The engine failed.
        """

    async def restore(self, name: str, *, cache_salt: str = "") -> Pinned:
        """Bring a prefix from disk into the engine and pin it. Nothing is done if it is pinned under the salt.

        Args:
            name: The name.
            cache_salt: Prompts with the same one alone take it over (`Prompt.cache_salt`).

        Raises:
            UserError: The name is not allowed.
            UnknownName: Nothing is saved under it.
            DataError: The files are damaged or cut short, or were written by another model, number format or layout;
                says which and what to do. Nothing is pinned.
            PrefixTooLarge: The engine's cache cannot pin that much.
        """

    async def fork(self, name: str, new_name: str, more: str | tuple[int, ...] = (), *, cache_salt: str = "") -> Pinned:
        """Pin and save another name for the same tokens and, optionally, further ones.

        The common part is not computed again. A name that is on disk alone is restored first. `new_name` may be taken:
        what it held is replaced.

        Args:
            name: An existing name.
            new_name: Another one.
            more: Tokens to append; a text is tokenized by itself, so that at the seam its tokens may differ from those
                of the whole text (a prompt shares what comes before the seam). Give token ids where that matters.
            cache_salt: As for `restore`.

        Raises:
            UserError: A name is not allowed, both are the same, or a token is not in the vocabulary.
            UnknownName: `name` is neither pinned nor on disk.
            ReasonError: What `restore` and `save` raise.
        """

    async def drop(self, name: str, *, keep_file: bool = False) -> None:
        """Give up a prefix: its pin and its files. Requests under way that use it go on.

        Args:
            name: The name.
            keep_file: Whether the files stay, so that it can be restored.

        Raises:
            UserError: The name is not allowed.
            UnknownName: It is neither pinned nor on disk.
        """

    async def saved(self) -> list[PrefixState]:
        """The prefixes of this model, by name: pinned, on disk, or both. Unreadable descriptions are left out."""


@runtime_checkable
class PinsPrefixes(Protocol):
    """A model with named prefixes: one whose `capabilities.pins` is true."""

    @property
    def kv_store(self) -> KVStore:
        """Its named prefixes."""


def kv_store_of(model: LanguageModel) -> KVStore:
    """The named prefixes of a model.

    Raises:
        CapabilityMissing: It has none. Where a prefix is pinned to save time alone, look at `capabilities.pins` first
            and go on without: the results are the same.
    """
    if model.capabilities.pins and isinstance(model, PinsPrefixes):
        return model.kv_store
    raise CapabilityMissing("pins", model.name)


def check_name(name: str) -> str:
    """The name, if it may be one.

    Raises:
        UserError: It may not.
    """
    if not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
        shown = repr(name) if len(name) <= 100 else repr(name[:97]) + "…"
        raise UserError(f"{shown} cannot name a prefix", hint=f"a name is {NAME_RULE}")
    return name
