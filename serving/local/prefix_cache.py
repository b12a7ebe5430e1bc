"""Which prompts are already in a log: an index over token ids, and the trees it points into.

A tree is one `KVLog` with a trie over the tokens that its columns hold. It belongs to the call that opened it. A new
sequence finds the longest stored run of its first tokens. It *joins* a tree of its own call, seeing those columns
(beams, branches, samples: what they share outweighs what each adds), and brings along copies of further columns that
another call's tree has. Otherwise it begins a tree with *copies* of what is stored, or an empty one.

Trees of different salts (`Prompt.cache_salt`) know nothing of each other: nothing is matched, copied or waited for
across them, so that nobody can tell by the time a prompt takes what another has asked. So no salt has a default here or
in the tasks: where it is forgotten, types say so.

Calls never share a tree, since the order of a log's columns is the order in which attention sums: so a call's numbers
do not depend on what was asked before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import OutOfMemoryError, Tensor

from ...core.errors import BackendError
from ..kv_store import PrefixTooLarge
from .kv_cache import MIN_CAPACITY, Branch, KVLog, whole_lanes

MIN_SHARED = 16
"""Fewest shared tokens worth a look: below it, computing them again costs less than the bookkeeping."""
BAGGAGE = 3
"""A tree is joined while it holds fewer columns than this many times what the newcomer will see."""
HELD_SHARE = 2
"""Named prefixes that are held take at most the budget divided by this: the rest is for what is under way."""
MAX_TREES = 256
"""Most trees kept: every lookup walks into each of them."""


class LogMaker(Protocol):
    """What opens logs (`Forward`)."""

    def open_log(self, capacity: int) -> KVLog:
        """An empty log."""

    @property
    def column_bytes(self) -> int:
        """Bytes of a column."""


class Node:
    """A stored token; the path from the root spells the tokens before it."""

    __slots__ = ("children", "column", "parent", "token")

    def __init__(self, token: int, column: int, parent: Node | None) -> None:
        self.token, self.column, self.parent = token, column, parent
        self.children: dict[int, Node] = {}


@dataclass(eq=False)
class Tree:
    """A log and the index of what it holds.

    Attributes:
        log: Keys and values.
        call: Whose it is.
        salt: Which prompts it may serve.
        root: Of the trie; holds no token.
        used_at: Logical time of the last use.
    """

    log: KVLog
    call: object
    salt: str
    root: Node = field(default_factory=lambda: Node(-1, -1, None))
    used_at: int = 0

    @property
    def idle(self) -> bool:
        """Whether no sequence is under way."""
        return not self.log.branches

    def match(self, ids: Sequence[int]) -> list[int]:
        """Columns of the longest stored run of the first tokens."""
        node, columns = self.root, []
        for token in ids:
            child = node.children.get(token)
            if child is None:
                break
            columns.append(child.column)
            node = child
        return columns

    def find(self, ids: Sequence[int]) -> Node:
        """The node of a run that `match` found whole."""
        node = self.root
        for token in ids:
            node = node.children[token]
        return node

    def add(self, node: Node, tokens: Sequence[int], columns: Sequence[int]) -> Node:
        """Store tokens below a node; what is stored already stays.

        Returns:
            The node of the last token.
        """
        for token, column in zip(tokens, columns, strict=True):
            child = node.children.get(token)
            if child is None:
                child = node.children[token] = Node(token, column, node)
            node = child
        return node

    def nodes(self) -> Iterator[Node]:
        """All stored tokens."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def compact(self) -> None:
        """Drop every column that no sequence under way sees, from the log and from the index."""
        moved = self.log.compact()
        stack = [self.root]
        while stack:
            node = stack.pop()
            node.children = {t: c for t, c in node.children.items() if c.column in moved}
            for child in node.children.values():
                child.column = moved[child.column]
                stack.append(child)


@dataclass(eq=False)
class Sequenced:
    """A sequence under way.

    Attributes:
        tree: Where it lives.
        branch: What it sees.
        node: Its last stored token in the index.
        cached: Tokens at its beginning that were not computed for it.
    """

    tree: Tree
    branch: Branch
    node: Node
    cached: int

    def record(self, tokens: Sequence[int]) -> None:
        """Store the tokens that the branch has just come to see."""
        self.node = self.tree.add(self.node, tokens, self.branch.columns[-len(tokens) :])

    def fork(self) -> Sequenced:
        """Another sequence that sees the same."""
        return Sequenced(self.tree, self.tree.log.fork(self.branch), self.node, self.cached)

    def release(self) -> None:
        """End it; its tokens stay stored."""
        self.tree.log.release(self.branch)


class OutOfCache(BackendError):
    """The byte budget cannot hold what is under way."""

    code = "out_of_cache"


@dataclass(frozen=True)
class _Held:
    """A sequence that stays, and its tokens."""

    ids: tuple[int, ...]
    sequence: Sequenced


class Prefixes:
    """All trees of an engine, under one byte budget.

    Args:
        maker: Opens logs.
        budget: Bytes that all logs together may take.
    """

    def __init__(self, maker: LogMaker, budget: int) -> None:
        self._maker, self._budget = maker, budget
        self._trees: list[Tree] = []
        self._held: list[_Held] = []
        self._lent = 0
        self._clock = 0

    @property
    def trees(self) -> Sequence[Tree]:
        """The trees, in no order."""
        return tuple(self._trees)

    @property
    def nbytes(self) -> int:
        """Bytes of all logs, and of what is lent."""
        return sum(t.log.nbytes for t in self._trees) + self._lent * self._maker.column_bytes

    @property
    def most_columns(self) -> int:
        """Columns that the budget holds."""
        return self._budget // self._maker.column_bytes

    def shared(self, ids: Sequence[int], salt: str) -> int:
        """Length of the longest run of the first tokens that is stored under a salt."""
        return max((len(t.match(ids)) for t in self._trees if t.salt == salt), default=0)

    def begin(self, ids: Sequence[int], private: int, call: object, salt: str) -> Sequenced:
        """Begin a sequence whose first tokens may be stored.

        Args:
            ids: Its tokens so far, all but the last of which may be taken from the store.
            private: Tokens it will probably add beyond `ids`.
            call: Whose it is: sequences of one call may live in one tree.
            salt: Under which it is stored, and others are looked for.

        Returns:
            The sequence; it sees `cached` tokens, and the rest of `ids` is to be computed.

        Raises:
            OutOfCache: The budget is taken by sequences under way.
        """
        self._clock += 1
        wanted = list(ids[:-1])
        source, stored = self._longest(wanted, salt)
        home, shared = self._longest(wanted, salt, call)
        own = len(ids) - len(shared) + private
        if home is None or len(shared) < MIN_SHARED or own > len(shared) or home.log.used > BAGGAGE * len(ids):
            home, shared = None, []
        if source is None or len(stored) < MIN_SHARED:
            stored = []
        pins = [(tree, tree.log.open(seen)) for tree, seen in ((source, stored), (home, shared)) if tree and seen]
        try:  # pinned, so that making room does not take what is about to be seen or copied
            if home is None:
                home = self._open(len(ids) + private, call, salt)
            home.used_at = self._clock
            if source is not None and len(stored) > len(shared):
                self.make_room(home, len(stored) - len(shared))
                source.used_at = self._clock
                kept = len(shared)
                shared = pins[-1][1].columns if kept else []
                copied = home.log.copy_from(source.log, pins[0][1].columns[kept:])
                home.add(home.find(wanted[:kept]), wanted[kept : len(stored)], copied)
                shared = [*shared, *copied]
            elif pins:
                shared = pins[-1][1].columns
            branch = home.log.open(shared)
        finally:
            for tree, pin in pins:
                tree.log.release(pin)
        return Sequenced(home, branch, home.find(wanted[: len(shared)]), len(shared))

    def adopt(self, ids: Sequence[int], layers: Sequence[Tensor], call: object, salt: str) -> Sequenced:
        """Begin a sequence whose keys and values were computed elsewhere, in a tree of its own.

        Args:
            ids: Its tokens.
            layers: Per layer `[2, kv_heads, tokens, head_dim]`, as `KVLog.read` gives them.
            call: Whose it is; no other sequence's.
            salt: Under which it is stored.

        Raises:
            OutOfCache: The budget is taken by sequences under way.
        """
        self._clock += 1
        tree = self._open(len(ids), call, salt)
        columns = tree.log.write(layers)
        return Sequenced(tree, tree.log.open(columns), tree.add(tree.root, ids, columns), len(ids))

    def check_hold(self, count: int) -> None:
        """See whether a sequence of `count` tokens may be held in a tree of its own.

        Raises:
            PrefixTooLarge: It may not.
        """
        held = sum({id(h.sequence.tree): h.sequence.tree.log.nbytes for h in self._held}.values())
        more = whole_lanes(max(MIN_CAPACITY, count)) * self._maker.column_bytes
        if HELD_SHARE * (held + more) > self._budget:
            raise PrefixTooLarge(
                f"{count} tokens need {more:,} bytes beside the {held:,} of pinned prefixes; these may take "
                f"{self._budget // HELD_SHARE:,}",
                hint="drop others (with keep_file they stay on disk), or give the engine a larger kv_bytes",
            )

    def hold(self, ids: Sequence[int], sequence: Sequenced) -> Sequenced:
        """Keep a sequence of these tokens until `let_go`: its columns are never evicted."""
        self._held.append(_Held(tuple(ids), sequence))
        return sequence

    def hold_again(self, ids: Sequence[int], salt: str) -> Sequenced | None:
        """Hold another sequence of tokens held already under a salt, over the same columns; None if they are not.

        It is found by all its tokens: what is held stands in the order of a prompt computed alone, and must do so.
        """
        wanted = tuple(ids)
        for held in self._held:
            if held.sequence.tree.salt != salt:
                continue
            if held.ids == wanted and len(held.sequence.branch) == len(wanted):
                return self.hold(wanted, held.sequence.fork())
        return None

    def let_go(self, sequence: Sequenced) -> None:
        """End a held sequence; idempotent. Its tokens stay stored while there is room."""
        if any(h.sequence is sequence for h in self._held):
            self._held = [h for h in self._held if h.sequence is not sequence]
            sequence.release()
            self.tidy(sequence.tree)

    def make_room(self, tree: Tree, count: int) -> None:
        """See to it that the tree's log can take `count` more columns.

        Raises:
            OutOfCache: Not even with every idle column dropped.
        """
        self._clock += 1
        tree.used_at = self._clock
        log = tree.log
        if not log.missing(count):
            return
        bounded = self._grown(log, count)
        if bounded is None:
            self._compact_busy()
            if not log.missing(count):
                return
            bounded = self._grown(log, count)
        if bounded is None:
            raise self._full()
        self._grow(log, bounded)

    def lend(self, columns: int) -> None:
        """Take room for keys and values that are kept elsewhere; fewer than 0 give it back.

        Raises:
            OutOfCache: Not even with every idle column dropped.
        """
        if columns > 0 and not self._evict_for(columns * self._maker.column_bytes):
            self._compact_busy()
            if not self._evict_for(columns * self._maker.column_bytes):
                raise self._full()
        self._lent += columns

    def tidy(self, tree: Tree) -> None:
        """Compact a busy tree when under half of its columns are seen, or forget an empty one."""
        if tree.idle:
            if not tree.root.children and tree in self._trees:
                self._trees.remove(tree)
            return
        if tree.log.used > 4 * MIN_CAPACITY and 2 * len(tree.log.live()) < tree.log.used:
            tree.compact()

    def clear(self) -> None:
        """Forget everything that is idle; what is held is not."""
        self._trees = [t for t in self._trees if not t.idle]

    def close(self) -> None:
        """Forget everything, and free the logs, whoever still refers to them."""
        for tree in self._trees:
            tree.log.close()
        self._trees, self._held = [], []

    def _full(self) -> OutOfCache:
        return OutOfCache(
            f"the cache of {self._budget >> 20} MiB is full",
            hint="give the engine a larger kv_bytes, ask for fewer or shorter samples at a time, or unpin prefixes",
        )

    def _longest(self, ids: Sequence[int], salt: str, call: object = None) -> tuple[Tree | None, list[int]]:
        """The salt's tree (of the call, if one is named) with the longest stored run, and the columns that hold it."""
        best: Tree | None = None
        columns: list[int] = []
        for tree in self._trees:
            if tree.salt != salt or (call is not None and tree.call is not call):
                continue
            found = tree.match(ids)
            lighter = best is not None and len(found) == len(columns) and tree.log.used < best.log.used
            if len(found) > len(columns) or (found and lighter):
                best, columns = tree, found
        return best, columns

    def _open(self, columns: int, call: object, salt: str) -> Tree:
        size = max(MIN_CAPACITY, columns)
        if not self._evict_for(size * self._maker.column_bytes):
            self._compact_busy()
            if not self._evict_for(size * self._maker.column_bytes):
                raise self._full()
        if len(self._trees) >= MAX_TREES:
            idle = [t for t in self._trees if t.idle]
            if idle:
                self._trees.remove(min(idle, key=lambda t: t.used_at))
        try:
            log = self._maker.open_log(size)
        except OutOfMemoryError as error:
            raise _no_memory() from error
        tree = Tree(log, call, salt, used_at=self._clock)
        self._trees.append(tree)
        return tree

    def _grown(self, log: KVLog, count: int) -> int | None:
        """Capacity the log may grow to so that `count` more fit, evicting idle trees; None if the budget forbids."""
        for capacity in (log.missing(count), log.used + count):
            if self._evict_for((capacity - log.capacity) * self._maker.column_bytes):
                return capacity
        return None

    def _evict_for(self, more: int) -> bool:
        """Drop idle trees, oldest first, until `more` bytes fit; drops none in vain."""
        idle = sorted((t for t in self._trees if t.idle), key=lambda t: t.used_at)
        if self.nbytes - sum(t.log.nbytes for t in idle) + more > self._budget:
            return False
        for tree in idle:
            if self.nbytes + more <= self._budget:
                break
            self._trees.remove(tree)
        return True

    def _compact_busy(self) -> None:
        """Drop what no sequence under way sees, and give back the room."""
        for tree in self._trees:
            if not tree.idle:
                tree.compact()
                enough = tree.log.used + MIN_CAPACITY
                if enough < tree.log.capacity:
                    self._grow(tree.log, enough)

    def _grow(self, log: KVLog, capacity: int) -> None:
        try:
            log.grow(capacity)
        except OutOfMemoryError as error:
            raise _no_memory() from error


def _no_memory() -> OutOfCache:
    """A GPU is full though the budget is not: others have taken what was free when the engine began."""
    return OutOfCache(
        "the device has no memory left for keys and values",
        hint="give the engine a smaller kv_bytes, so that it evicts earlier, or end what else uses the device",
    )
