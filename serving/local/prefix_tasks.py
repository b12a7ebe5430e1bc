"""Named prefixes on the engine's thread: computing one to hold it, putting one in, giving some back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ...core.errors import ReasonError
from ...core.messages import Usage
from .prefixes import Sequenced
from .tasks import Fill, Queue


@dataclass(frozen=True)
class Held:
    """A prefix that the engine holds (`Prefixes.hold`) until it is given back by a `ReleaseTask`.

    Attributes:
        sequence: What holds it.
        layers: Copies of its keys and values, per layer `[2, kv_heads, tokens, head_dim]`; empty if not asked for.
        usage: Its tokens, and how many of them were not computed.
    """

    sequence: Sequenced
    layers: Sequence[Tensor]
    usage: Usage


@dataclass(eq=False)
class HoldTask:
    """A prompt whose keys and values are computed where they are missing, held, and copied out.

    Attributes:
        ids: Tokens of the prompt.
        told: Takes what is held; it is the taker's to give back.
        salt: Under which it is shared.
    """

    ids: Sequence[int]
    told: Callable[[Held], None]
    failed: Callable[[ReasonError], None]
    salt: str
    call: object = field(default_factory=object)
    cancelled: bool = False
    asked_at: float = field(default_factory=time.monotonic)
    _give_back: Callable[[], None] | None = None

    def start(self, queue: Queue) -> None:
        """Look up the prompt and have the rest of it computed."""
        waited_s = time.monotonic() - self.asked_at
        prefixes = queue.prefixes
        if (again := prefixes.hold_again(self.ids, self.salt)) is not None:
            self._tell(again, len(self.ids), waited_s)
            return
        try:
            prefixes.check_hold(len(self.ids))
        except ReasonError as error:
            self.fail(error)
            return
        begun = prefixes.begin(self.ids, 0, self.call, self.salt)
        prefixes.hold(self.ids, begun)  # at once, so that what others may hold beside it is right
        self._give_back = lambda: prefixes.let_go(begun)

        def done(logits: Tensor, first: int) -> None:
            self._give_back = None  # from here on that is the listener's part
            self._tell(begun, begun.cached, waited_s)

        queue.fill(Fill(self, begun, self.ids[begun.cached :], False, done))

    def fail(self, error: ReasonError) -> None:
        """Nothing is held."""
        self.failed(error)

    def release(self) -> None:
        """Give back what is not computed whole."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()

    def _tell(self, sequence: Sequenced, cached: int, waited_s: float) -> None:
        usage = Usage(prompt_tokens=len(self.ids), cached_tokens=cached, waited_s=waited_s)
        self.told(Held(sequence, sequence.tree.log.read(sequence.branch.columns), usage))


@dataclass(eq=False)
class AdoptTask:
    """Keys and values that were computed elsewhere: they are put into a log of their own and held.

    Attributes:
        tokens: The tokens they belong to.
        layers: Per layer `[2, kv_heads, tokens, head_dim]`.
        salt: Under which they are shared.
    """

    tokens: Sequence[int]
    layers: Sequence[Tensor]
    told: Callable[[Held], None]
    failed: Callable[[ReasonError], None]
    salt: str
    ids: Sequence[int] = ()
    call: object = field(default_factory=object)
    cancelled: bool = False

    def start(self, queue: Queue) -> None:
        """Put them in, unless the tokens are held already."""
        prefixes = queue.prefixes
        sequence = prefixes.hold_again(self.tokens, self.salt)
        if sequence is None:
            try:
                prefixes.check_hold(len(self.tokens))
            except ReasonError as error:
                self.fail(error)
                return
            adopted = prefixes.adopt(self.tokens, self.layers, self.call, self.salt)
            sequence = prefixes.hold(self.tokens, adopted)
        count = len(self.tokens)
        self.told(Held(sequence, (), Usage(prompt_tokens=count, cached_tokens=count)))

    def fail(self, error: ReasonError) -> None:
        """Nothing is held."""
        self.failed(error)

    def release(self) -> None:
        """Nothing to do: it begins and ends in one."""


@dataclass(eq=False)
class ReleaseTask:
    """Held prefixes are given back; nobody waits for it, and it begins and ends when it is submitted."""

    sequences: Sequence[Sequenced]
    salt: str = ""
    ids: Sequence[int] = ()
    call: object = field(default_factory=object)
    cancelled: bool = False

    def start(self, queue: Queue) -> None:
        """Give them back."""
        for sequence in self.sequences:
            queue.prefixes.let_go(sequence)

    def fail(self, error: ReasonError) -> None:
        """Nothing to tell."""

    def release(self) -> None:
        """Nothing to do."""
