"""`StepSearch`: ask which prefixes to continue, tell what came back. The bookkeeping that all searches share.

    while batch := search.ask():
        for expand in batch:
            search.tell(expand, …)          # sampled and scored by whoever owns the search
    search.outcome()

What is told of a batch takes effect once all of it is there, in the order in which it was asked for. So the order of
arrival means nothing, and a search goes on from its JSON exactly as it would have, whatever had been told by then.

What a search asks for, `Expand`, and what it has found, `Outcome`.

`Limits`: what a search may spend, checked before it spends; and `SearchOptions`, which all searches have.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...core.errors import DataError, UserError
from .tree import Continuation, Ledger, N, Tree, survivors

Scoring = Literal["all", "ended", "none"]
"""Which continuations a search wants scored: all, complete solutions alone, or none."""

Key = tuple[int, int]
"""What names a request: a node, and which of the node's requests it is."""


@dataclass(frozen=True, slots=True)
class Expand:
    """A prefix to continue, or one behind which given steps are to be weighed.

    Where `given` is empty, steps are sampled. Else nothing is: told are `n == len(given)` continuations, the given
    steps in their order, each with its log-probability and the score of the prefix that ends with it, if they can be
    had, and with 0 tokens.

    Attributes:
        node: Its id.
        n: Continuations wanted.
        first: Index of the first of them among all samples of this prefix's text. Nodes of the same text are given
            different indices, so whoever names a sample by text and index never gets one twice.
        max_tokens: Most tokens of each continuation.
        finish: Whether the final answer is wanted instead of a step; the continuation counts as terminal.
        score: Which of the continuations that survive (`siblings.survivors`) are to be scored.
        temperature: What the sampler's temperature is to be multiplied by.
        given: Steps, as they stand in the tree, delimiters included; they follow the prefix one behind the other.
        turn: Which request of this node it is, from 0.
    """

    node: int
    n: int
    first: int
    max_tokens: int
    finish: bool = False
    score: Scoring = "all"
    temperature: float = 1.0
    given: tuple[str, ...] = ()
    turn: int = 0

    @property
    def key(self) -> Key:
        """What names it among all requests of its search."""
        return self.node, self.turn


Heard = list[tuple[Expand, tuple[Continuation, ...]]]
"""A batch with what came back."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[N]):
    """What a search has found so far.

    Attributes:
        chosen: The solution it would return. Not terminal only if it found no complete one and could not complete any;
            None if there is no step at all.
        terminals: All complete solutions worth a vote, the best first.
        weights: Weight of each in a vote.
        stopped: Why it ended: "done"; "exhausted", nothing was left to expand; "tokens", "prm_passes" or "expansions",
            a limit; or what its owner said. Empty while it goes on.
        ledger: What it cost.
    """

    chosen: N | None
    terminals: tuple[N, ...]
    weights: tuple[float, ...]
    stopped: str
    ledger: Ledger


class Limits(BaseModel):
    """Limits of one search; None is no limit.

    An expansion is asked for only if the most that it could cost fits in, with `finish_tokens` left over. So no limit
    is exceeded by a sampler that keeps to the tokens it is allowed, and a final answer can always be asked for.

    Differs: the wall clock is not here, for a search has none; its owner calls `end`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gen_tokens: Annotated[int, Field(gt=0)] | None = None
    """Generated tokens, those of discarded continuations included."""
    prm_passes: Annotated[int, Field(ge=0)] | None = None
    """Passes of the reward model."""
    expansions: Annotated[int, Field(ge=0)] | None = None
    """Prefixes continued."""
    finish_tokens: Annotated[int, Field(ge=1)] = 256
    """Tokens that a forced final answer may take."""
    least_step_tokens: Annotated[int, Field(ge=1)] = 32
    """As the tokens run out, steps are cut shorter, down to this; below it nothing is expanded any more."""

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.gen_tokens is not None and self.gen_tokens < self.finish_tokens:
            raise ValueError("gen_tokens leaves no room for finish_tokens")
        return self

    def tokens_left(self, ledger: Ledger) -> int | None:
        """Tokens not yet spent, at least 0; None without a limit."""
        return None if self.gen_tokens is None else max(0, self.gen_tokens - ledger.gen_tokens)

    def passes_left(self, ledger: Ledger) -> int | None:
        """Passes of the reward model not yet spent, at least 0; None without a limit."""
        return None if self.prm_passes is None else max(0, self.prm_passes - ledger.prm_passes)

    def step_tokens(self, ledger: Ledger, *, samples: int, completions: int, most: int) -> int:
        """Tokens that each of `samples` continuations may take beside `completions` final answers.

        At most `most`; less than `least_step_tokens`, perhaps below 0, if that is all there is.
        """
        left = self.tokens_left(ledger)
        if left is None:
            return most
        free = left - self.finish_tokens * (completions + 1)
        if samples == 0:
            return most if free >= 0 else free
        return min(most, free // samples)

    def lacking(
        self, ledger: Ledger, *, samples: int, passes: int, expansions: int, completions: int, most: int
    ) -> str | None:
        """The limit that forbids a batch: "tokens", "prm_passes" or "expansions"; None if the batch fits in.

        Args:
            ledger: What was spent.
            samples: Continuations of all its expansions together, completions left away.
            passes: Scores that could be asked for.
            expansions: Prefixes it continues.
            completions: Final answers it asks for.
            most: Most tokens of a step, as far as the budget allows.
        """
        each = self.step_tokens(ledger, samples=samples, completions=completions, most=most)
        if each < (min(self.least_step_tokens, most) if samples else 0):
            return "tokens"
        if self.prm_passes is not None and ledger.prm_passes + passes > self.prm_passes:
            return "prm_passes"
        if self.expansions is not None and ledger.expansions + expansions > self.expansions:
            return "expansions"
        return None


class SearchOptions(BaseModel):
    """Options that every search has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_depth: Annotated[int, Field(ge=1, description="most steps of a solution")] = 40
    max_step_tokens: Annotated[int, Field(ge=1, description="most tokens of a step")] = 512
    limits: Limits = Limits()


__all__ = ["Expand", "Heard", "Outcome", "StepSearch"]

VERSION = 1


O = TypeVar("O", bound=SearchOptions)  # noqa: E741


class StepSearch(ABC, Generic[N, O]):
    """A search over steps.

    Args:
        options: Its parameters.
        rng: Its randomness, for the searches that have some; a search alone may draw from it.
    """

    name: ClassVar[str]
    Options: ClassVar[type[SearchOptions]]
    Node: ClassVar[type[Any]]

    def __init__(self, options: O, rng: Random | None = None) -> None:
        self.options = options
        self.rng = rng
        self.tree: Tree[N] = Tree(self.Node)
        self.ledger = Ledger()
        self.stopped = ""
        self._asked: dict[Key, Expand] = {}
        self._heard: dict[Key, tuple[Continuation, ...]] = {}
        self._told: dict[Key, str] = {}
        self.tree.add_root()

    # -- for its owner

    def ask(self) -> list[Expand]:
        """What to expand next: the part of the current batch that was not told yet. Empty when the search is over."""
        if not self._asked and not self.stopped:
            self._post(self._next())
        return [expand for key, expand in self._asked.items() if key not in self._heard]

    def tell(self, asked: Expand | int, results: Sequence[Continuation]) -> None:
        """Say what came back for a prefix. Saying the same again changes nothing.

        Args:
            asked: What was asked for; the id of a node is enough where the search asks for no node twice, which only
                re-expanding and ancestor sampling do.
            results: As many continuations as were asked for, in the order of their sample indices. Duplicates and
                continuations that add nothing are part of them, and come best without a score.

        Raises:
            UserError: The prefix was not asked for, or was told differently before, or the number is not the one asked
                for.
        """
        key = (asked, 0) if isinstance(asked, int) else asked.key
        node_id, told = key[0], tuple(results)
        mark = hashlib.blake2b(repr(told).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        if key in self._told:
            if self._told[key] != mark:
                raise UserError(f"node {node_id} was told other results before", hint="each request is answered once")
            return
        expand = self._asked.get(key)
        if expand is None:
            raise UserError(f"node {node_id} was not asked for", hint="tell the nodes that ask() names")
        if not expand.n <= len(told) <= self._most_told(expand):
            raise UserError(
                f"node {node_id} was told {len(told)} continuations and {expand.n} were asked for",
                hint="an empty continuation stands for one that could not be had",
            )
        self._told[key] = mark
        self._heard[key] = told
        self._count(expand, told)
        if len(self._heard) == len(self._asked):
            self._deliver([])

    def to_score(self, expand: Expand, results: Sequence[Continuation]) -> list[int]:
        """Positions of the continuations whose scores the search wants; the others come best without one.

        Args:
            expand: What was asked for.
            results: What came back, not yet scored.
        """
        if expand.score == "none":
            return []
        kept = range(len(results)) if expand.finish or expand.given else self._kept(expand, results)
        return [i for i in kept if not results[i].blank and (expand.score == "all" or results[i].terminal)]

    def end(self, reason: str, *, complete: bool = True) -> None:
        """End the search for a reason of its owner's, such as the time.

        What was asked and not told is withdrawn. Without effect on a search that is over.

        Args:
            reason: What `Outcome.stopped` is to say.
            complete: Whether a final answer may still be asked for, if there is no complete solution.
        """
        if self.stopped and not self._asked:
            return
        closing, self.stopped = self.stopped, self.stopped or reason
        self._deliver([expand for key, expand in self._asked.items() if key not in self._heard])
        if not closing:
            self._post(self._wind_up(reason, complete=complete))

    @property
    def over(self) -> bool:
        """Whether nothing more will be asked. Only `ask` finds out."""
        return bool(self.stopped) and not self._asked

    @abstractmethod
    def outcome(self) -> Outcome[N]:
        """What was found so far; may be asked at any time."""

    # -- JSON

    def to_json(self) -> dict[str, Any]:
        """The complete state as plain JSON."""
        state = self.rng.getstate() if self.rng is not None else None
        return {
            "search": self.name,
            "version": VERSION,
            "options": self.options.model_dump(mode="json"),
            "rng": None if state is None else [state[0], list(state[1]), state[2]],
            "nodes": self.tree.to_json(),
            "ledger": asdict(self.ledger),
            "stopped": self.stopped,
            "asked": [asdict(expand) for expand in self._asked.values()],
            "heard": [[*key, [asdict(step) for step in self._heard[key]]] for key in self._asked if key in self._heard],
            "told": [[*key, self._told[key]] for key in sorted(self._told)],
            "state": self._state(),
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Self:
        """A search that goes on where another was when `to_json` was called.

        Raises:
            DataError: This is no state of such a search.
        """
        if state.get("search") != cls.name or state.get("version") != VERSION:
            raise DataError(
                f"a state of {state.get('search')!r}, version {state.get('version')!r}, where {cls.name!r}, version "
                f"{VERSION}, was expected",
                hint="read it with the class and the release that wrote it",
            )
        try:
            rng = None
            if state["rng"] is not None:
                version, internal, gauss = state["rng"]
                rng = Random()  # noqa: S311 - a search, not a secret
                rng.setstate((version, tuple(internal), gauss))
            options: Any = cls.Options.model_validate(state["options"])
            search = cls(options) if rng is None else cls(options, rng)
            search.tree.load(state["nodes"])
            search.ledger = Ledger(**state["ledger"])
            search.stopped = state["stopped"]
            asked = [Expand(**{**e, "given": tuple(e["given"])}) for e in state["asked"]]
            search._asked = {expand.key: expand for expand in asked}
            search._heard = {(i, t): tuple(Continuation(**step) for step in steps) for i, t, steps in state["heard"]}
            search._told = {(i, t): mark for i, t, mark in state["told"]}
            search._restore(state["state"])
        except (LookupError, AttributeError, TypeError, ValueError, UserError) as e:
            raise DataError(f"the state of the search {cls.name!r} is damaged: {e!r}") from e
        return search

    # -- for a search

    @abstractmethod
    def _next(self) -> list[Expand]:
        """The next batch, made by `_expansion`; nothing after setting `stopped`, or what `_wind_up` gives."""

    @abstractmethod
    def _take(self, heard: Heard, missed: list[Expand]) -> None:
        """Take a batch in. `missed` is what was withdrawn; empty unless the search was ended."""

    @abstractmethod
    def _unfinished(self) -> N | None:
        """The prefix worth completing if the search ended now; None if there is a complete solution, or no prefix."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """What is the search's own, as plain JSON."""

    @abstractmethod
    def _restore(self, state: Mapping[str, Any]) -> None:
        """Take what `_state` gave."""

    def _kept(self, expand: Expand, results: Sequence[Continuation]) -> list[int]:
        """Positions of the continuations that become nodes."""
        return survivors(results, at_root=self.tree[expand.node].parent is None)

    def _most_told(self, expand: Expand) -> int:
        """Most continuations that may be told; more than were asked for only where duplicates are sampled anew."""
        return expand.n

    def _expanded(self, node: N) -> bool:
        """Whether a node's continuations were told."""
        return (node.id, 0) in self._told

    def _expansion(self, node: N, n: int, max_tokens: int, *, finish: bool = False, score: Scoring = "all") -> Expand:
        warmer = 1.0 if finish else self._warmer(node)
        return Expand(node.id, n, self.tree.draw(node, n), max_tokens, finish, score, warmer)

    def _warmer(self, node: N) -> float:
        """What the sampler's temperature is multiplied by where a node is continued."""
        return 1.0

    def _batch(self, nodes: Sequence[tuple[N, int]], *, score: Scoring = "all") -> list[Expand] | str:
        """Expand nodes, each by so many continuations; those at the depth limit are completed instead.

        Returns:
            The batch, or the name of the limit that forbids it.
        """
        deep = [node for node, _ in nodes if node.depth >= self.options.max_depth]
        samples = sum(n for node, n in nodes if node.depth < self.options.max_depth)
        limits, most = self.options.limits, self.options.max_step_tokens
        lacking = limits.lacking(
            self.ledger,
            samples=samples,
            passes=samples + len(deep),
            expansions=len(nodes) - len(deep),
            completions=len(deep),
            most=most,
        )
        if lacking is not None:
            return lacking
        each = limits.step_tokens(self.ledger, samples=samples, completions=len(deep), most=most)
        return [
            self._expansion(node, 1, limits.finish_tokens, finish=True)
            if node.depth >= self.options.max_depth
            else self._expansion(node, n, each, score=score)
            for node, n in nodes
        ]

    def _wind_up(self, reason: str, *, complete: bool = True) -> list[Expand]:
        """End the search; ask for one final answer if there is none and it can be paid."""
        self.stopped = reason
        node = self._unfinished() if complete else None
        left = self.options.limits.tokens_left(self.ledger)
        most = self.options.limits.finish_tokens if left is None else min(left, self.options.limits.finish_tokens)
        if node is None or most <= 0:
            return []
        return [self._expansion(node, 1, most, finish=True, score="none")]

    def _children(self, parent: N, expand: Expand, results: Sequence[Continuation]) -> list[N]:
        """Add the continuations that survive to the tree; count those that do not."""
        if expand.finish:
            self._count_unscored(expand, results)
            return [self.tree.add(parent, results[0], forced=True)]
        kept = [results[i] for i in self._kept(expand, results)]
        blanks = sum(step.blank and (parent.parent is None or not step.terminal) for step in results)
        self.ledger.empties += blanks
        self.ledger.duplicates += len(results) - len(kept) - blanks
        self._count_unscored(expand, kept)
        return [self.tree.add(parent, step) for step in kept]

    def _count_unscored(self, expand: Expand, kept: Sequence[Continuation]) -> None:
        for step in kept:
            wanted = expand.score == "all" or (expand.score == "ended" and step.terminal)
            self.ledger.unscored += wanted and step.score is None and not step.blank

    def _outcome(self, chosen: N | None, terminals: Sequence[N], weights: Sequence[float] | None = None) -> Outcome[N]:
        each = tuple(weights) if weights is not None else (1.0,) * len(terminals)
        return Outcome(chosen, tuple(terminals), each, self.stopped, replace(self.ledger))

    def _post(self, batch: list[Expand]) -> None:
        """Make a batch the current one."""
        self._asked = {}
        for expand in batch:
            turn = 0
            while (expand.node, turn) in self._told or (expand.node, turn) in self._asked:
                turn += 1
            self._asked[expand.node, turn] = replace(expand, turn=turn)

    def _deliver(self, missed: list[Expand]) -> None:
        heard = [(expand, self._heard[key]) for key, expand in self._asked.items() if key in self._heard]
        self._asked, self._heard = {}, {}
        if heard or missed:
            self._take(heard, missed)

    def _count(self, expand: Expand, told: tuple[Continuation, ...]) -> None:
        self.ledger.prm_passes += sum(step.score is not None for step in told)
        if expand.given:
            self.ledger.weighings += 1
            return
        self.ledger.completions += expand.finish
        self.ledger.expansions += not expand.finish
        self.ledger.samples += len(told)
        self.ledger.gen_tokens += sum(step.tokens for step in told)
