"""Automatic prefix caching: which prompts are already in a KV cache.

A `PrefixTree` is one `KVCache` with a trie over the tokens in its slots. It belongs to the call that created it.
A new sequence finds the longest stored run of its first tokens. It *joins* a tree of its own call, attending to those
slots (beams, branches, samples: what they share exceeds what each adds), and brings along copies of further slots
that another call's tree has. Otherwise it starts a tree with *copies* of what is stored, or an empty one.

Trees of different salts (`Prompt.cache_salt`) are isolated: nothing is matched, copied or waited for across them, so
that the time a prompt takes does not reveal another tenant's prompts. So no salt has a default here or in the tasks:
the type checker reports a missing one.

Calls never share a tree, since the order of a cache's slots is the order in which attention sums: a call's numbers do
not depend on what was computed before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ...core.errors import BackendError
from .kv_cache import MIN_CAPACITY, KVCache, SlotTable

MIN_SHARED_TOKENS = 16
"""Minimum shared tokens: below it, computing them again costs less than the bookkeeping."""
MAX_USED_RATIO = 3
"""A tree is joined while it has fewer slots than this many times what the new sequence will attend to."""
MAX_TREES = 256
"""Maximum trees: every lookup searches all of them."""


class CacheFactory(Protocol):
    """What creates caches (`CausalLM`)."""

    def new_kv_cache(self, capacity: int) -> KVCache:
        """An empty cache."""

    @property
    def slot_bytes(self) -> int:
        """Bytes of a slot."""


class PrefixNode:
    """A stored token; the path from the root spells the tokens before it."""

    __slots__ = ("children", "parent", "slot", "token")

    def __init__(self, token: int, slot: int, parent: PrefixNode | None) -> None:
        self.token, self.slot, self.parent = token, slot, parent
        self.children: dict[int, PrefixNode] = {}


@dataclass(eq=False)
class PrefixTree:
    """A KV cache and the index of its tokens.

    Attributes:
        cache: Keys and values.
        call: The call that it belongs to.
        salt: The salt of the prompts that it serves.
        root: Of the trie; has no token.
        used_at: Logical time of the last use.
    """

    cache: KVCache
    call: object
    salt: str
    root: PrefixNode = field(default_factory=lambda: PrefixNode(-1, -1, None))
    used_at: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether no sequence is running in it."""
        return not self.cache.tables

    def match(self, token_ids: Sequence[int]) -> list[int]:
        """Slots of the longest stored run of the first tokens."""
        node, slots = self.root, []
        for token in token_ids:
            child = node.children.get(token)
            if child is None:
                break
            slots.append(child.slot)
            node = child
        return self.cache.kept_run(slots)

    def node_at(self, token_ids: Sequence[int]) -> PrefixNode:
        """The node of a run that is stored completely."""
        node = self.root
        for token in token_ids:
            node = node.children[token]
        return node

    def insert(self, node: PrefixNode, token_ids: Sequence[int], slots: Sequence[int]) -> PrefixNode:
        """Store tokens below a node; what is stored already stays, unless its slot is lost.

        Returns:
            The node of the last token.
        """
        for token, slot in zip(token_ids, slots, strict=True):
            child = node.children.get(token)
            if child is None:
                child = node.children[token] = PrefixNode(token, slot, node)
            elif not self.cache.keeps(child.slot):
                child.slot = slot
            node = child
        return node

    def nodes(self) -> Iterator[PrefixNode]:
        """All stored tokens."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def compact(self) -> None:
        """Drop every slot that no running sequence attends to, from the cache and from the index."""
        moved = self.cache.compact()
        stack = [self.root]
        while stack:
            node = stack.pop()
            node.children = {t: c for t, c in node.children.items() if c.slot in moved}
            for child in node.children.values():
                child.slot = moved[child.slot]
                stack.append(child)


@dataclass(eq=False)
class CachedSequence:
    """A sequence in a prefix tree.

    Attributes:
        tree: The tree.
        table: Its slots.
        node: Its last stored token in the index.
        num_cached: Its first tokens that were not computed for it.
    """

    tree: PrefixTree
    table: SlotTable
    node: PrefixNode
    num_cached: int

    def record(self, token_ids: Sequence[int]) -> None:
        """Store the tokens whose slots were appended last."""
        self.node = self.tree.insert(self.node, token_ids, self.table.slots[-len(token_ids) :])

    def fork(self) -> CachedSequence:
        """Another sequence that attends to the same."""
        return CachedSequence(self.tree, self.tree.cache.fork(self.table), self.node, self.num_cached)

    def release(self) -> None:
        """End it; its tokens stay stored."""
        self.tree.cache.free(self.table)


class OutOfCache(BackendError):
    """The byte budget cannot hold the running sequences."""

    code = "out_of_cache"


class PrefixCache:
    """All prefix trees of an engine, under one byte budget."""

    def __init__(self, factory: CacheFactory, budget: int) -> None:
        self._factory, self._budget = factory, budget
        self._trees: list[PrefixTree] = []
        self._external_slots = 0
        self._clock = 0

    @property
    def trees(self) -> Sequence[PrefixTree]:
        """The trees, in no order."""
        return tuple(self._trees)

    @property
    def nbytes(self) -> int:
        """Bytes of all caches, and of the slots reserved for external ones."""
        return sum(t.cache.nbytes for t in self._trees) + self._external_slots * self._factory.slot_bytes

    @property
    def max_slots(self) -> int:
        """Slots that fit the budget."""
        return self._budget // self._factory.slot_bytes

    def match_length(self, token_ids: Sequence[int], salt: str) -> int:
        """Length of the longest run of the first tokens that is stored under a salt."""
        return max((len(t.match(token_ids)) for t in self._trees if t.salt == salt), default=0)

    def start(self, token_ids: Sequence[int], num_new: int, call: object, salt: str) -> CachedSequence:
        """Start a sequence whose first tokens may be stored.

        Args:
            token_ids: Its tokens so far, all but the last of which may be taken from the cache.
            num_new: Tokens it will probably add beyond `token_ids`.
            call: Its call: sequences of one call may share a tree.
            salt: Under which it is stored and matched.

        Returns:
            The sequence; it attends to `num_cached` tokens, and the rest of `token_ids` is to be computed.

        Raises:
            OutOfCache: The budget is taken by running sequences.
        """
        self._clock += 1
        reusable = list(token_ids[:-1])
        source, stored = self._longest_match(reusable, salt)
        home, shared = self._longest_match(reusable, salt, call)
        num_own = len(token_ids) - len(shared) + num_new
        too_used = home is not None and home.cache.used > MAX_USED_RATIO * len(token_ids)
        if home is None or len(shared) < MIN_SHARED_TOKENS or num_own > len(shared) or too_used:
            home, shared = None, []
        if source is None or len(stored) < MIN_SHARED_TOKENS:
            stored = []
        guards = [
            (tree, tree.cache.new_table(slots)) for tree, slots in ((source, stored), (home, shared)) if tree and slots
        ]
        try:  # guarded, so that eviction keeps what is about to be shared or copied
            if home is None:
                home = self._new_tree(len(token_ids) + num_new, call, salt)
            home.used_at = self._clock
            if source is not None and len(stored) > len(shared):
                self.make_room(home, len(stored) - len(shared))
                source.used_at = self._clock
                num_shared = len(shared)
                shared = guards[-1][1].slots if num_shared else []
                copied = home.cache.copy_from(source.cache, guards[0][1].slots[num_shared:])
                home.insert(home.node_at(reusable[:num_shared]), reusable[num_shared : len(stored)], copied)
                shared = [*shared, *copied]
            elif guards:
                shared = guards[-1][1].slots
            table = home.cache.new_table(shared)
        finally:
            for tree, guard in guards:
                tree.cache.free(guard)
        return CachedSequence(home, table, home.node_at(reusable[: len(shared)]), len(shared))

    def make_room(self, tree: PrefixTree, count: int) -> None:
        """Make the tree's cache fit `count` more slots.

        Raises:
            OutOfCache: The budget is too small even after evicting all idle slots.
        """
        self._clock += 1
        tree.used_at = self._clock
        cache = tree.cache
        if not cache.required_capacity(count):
            return
        capacity = self._affordable_capacity(cache, count)
        if capacity is None:
            self._compact_busy()
            if not cache.required_capacity(count):
                return
            capacity = self._affordable_capacity(cache, count)
        if capacity is None:
            raise self._full()
        cache.resize(capacity)

    def reserve_external(self, slots: int) -> None:
        """Reserve budget for keys and values stored elsewhere; a negative number releases it.

        Raises:
            OutOfCache: The budget is too small even after evicting all idle slots.
        """
        if slots > 0 and not self._evict_for(slots * self._factory.slot_bytes):
            self._compact_busy()
            if not self._evict_for(slots * self._factory.slot_bytes):
                raise self._full()
        self._external_slots += slots

    def tidy(self, tree: PrefixTree) -> None:
        """Compact a busy tree when under half of its slots are live, or forget an empty one."""
        if tree.is_idle:
            if not tree.root.children and tree in self._trees:
                self._forget(tree)
            return
        if tree.cache.used > 4 * MIN_CAPACITY and 2 * len(tree.cache.live_slots()) < tree.cache.used:
            tree.compact()

    def evict_idle(self) -> None:
        """Forget all idle trees."""
        for tree in self._trees:
            if tree.is_idle:
                self._forget(tree)

    def close(self) -> None:
        """Forget everything, and free the caches even where they are still referenced."""
        for tree in self._trees:
            tree.cache.close()
        self._trees = []

    def _full(self) -> OutOfCache:
        return OutOfCache(
            f"the cache of {self._budget >> 20} MiB is full",
            hint="give the engine a larger kv_cache_bytes, or request fewer or shorter samples at a time",
        )

    def _longest_match(
        self, token_ids: Sequence[int], salt: str, call: object = None
    ) -> tuple[PrefixTree | None, list[int]]:
        """The salt's tree (of the call, if given) with the longest stored prefix, and its slots."""
        best: PrefixTree | None = None
        best_slots: list[int] = []
        for tree in self._trees:
            if tree.salt != salt or (call is not None and tree.call is not call):
                continue
            slots = tree.match(token_ids)
            is_smaller = best is not None and len(slots) == len(best_slots) and tree.cache.used < best.cache.used
            if len(slots) > len(best_slots) or (slots and is_smaller):
                best, best_slots = tree, slots
        return best, best_slots

    def _new_tree(self, num_slots: int, call: object, salt: str) -> PrefixTree:
        size = max(MIN_CAPACITY, num_slots)
        if not self._evict_for(size * self._factory.slot_bytes):
            self._compact_busy()
            if not self._evict_for(size * self._factory.slot_bytes):
                raise self._full()
        if len(self._trees) >= MAX_TREES:
            idle = [t for t in self._trees if t.is_idle]
            if idle:
                self._forget(min(idle, key=lambda t: t.used_at))
        tree = PrefixTree(self._factory.new_kv_cache(size), call, salt, used_at=self._clock)
        self._trees.append(tree)
        return tree

    def _affordable_capacity(self, cache: KVCache, count: int) -> int | None:
        """Capacity to grow to so that `count` more slots fit, evicting idle trees; None if the budget forbids it."""
        for capacity in (cache.required_capacity(count), cache.used + count):
            if self._evict_for((capacity - cache.capacity) * self._factory.slot_bytes):
                return capacity
        return None

    def _evict_for(self, more: int) -> bool:
        """Drop idle trees, oldest first, until `more` bytes fit; drops none in vain."""
        idle = sorted((t for t in self._trees if t.is_idle), key=lambda t: t.used_at)
        if self.nbytes - sum(t.cache.nbytes for t in idle) + more > self._budget:
            return False
        for tree in idle:
            if self.nbytes + more <= self._budget:
                break
            self._forget(tree)
        return True

    def _forget(self, tree: PrefixTree) -> None:
        """Free an idle tree."""
        self._trees = [t for t in self._trees if t is not tree]
        tree.cache.close()

    def _compact_busy(self) -> None:
        """Drop what no running sequence attends to, and free the memory."""
        for tree in self._trees:
            if not tree.is_idle:
                tree.compact()
                enough = tree.cache.used + MIN_CAPACITY
                if enough < tree.cache.capacity:
                    tree.cache.resize(enough)
