"""Searches over recorded trees: expansions and scores are answered from a record instead of by models.

    tree = RecordedTree(row)
    replay = replay_search(BeamSearch(BeamOptions(width=5, k=tree.max_children)), tree)
    replay.complete, replay.num_opened, replay.left_record

A row is one JSON object:

    {"question_id": "q1", "value_max": 60, "nodes": [
        {"id": 0, "parent": null, "depth": 0, "thought": ""},
        {"id": 1, "parent": 0, "depth": 1, "thought": "4 + 4 = 8", "value": 60, "selected": true},
        {"id": 2, "parent": 1, "depth": 2, "thought": "8 * 3 = 24", "value": 60, "answer": "24", "correct": true}]}

A record holds what one search explored. Another search may open a node that the recorded one did not; nothing follows
that node here, so the replay's result is a lower bound of what the search would have reached, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from reason.reasoning.search.core import Continuation, ExpandRequest, Node, SearchOutcome, StepSearch

BLANK = Continuation("", 0)
"""Stands for a continuation that the record does not hold."""


@dataclass(frozen=True, slots=True)
class RecordedNode:
    """One state of a recorded search.

    Attributes:
        id: Unique within its tree.
        parent: Id of the state before; None for the root.
        depth: Number of thoughts up to here; 0 for the root.
        thought: The last thought; empty for the root.
        value: Value of the state, in [0, `value_max` of the tree]; None if it has none.
        selected: Whether the recorded search kept and, unless it is complete, expanded it. Absent: it did if the node
            has children.
        answer: The answer of a complete solution.
        correct: Whether a complete solution is correct.
    """

    id: int
    parent: int | None
    depth: int
    thought: str
    value: float | None = None
    selected: bool | None = None
    answer: str | None = None
    correct: bool | None = None

    @property
    def is_complete(self) -> bool:
        """Whether it is a complete solution: it has an answer, or a verdict on one."""
        return self.answer is not None or self.correct is not None


class RecordedTree:
    """The tree of one recorded search.

    Siblings of equal thought are one state: it is proposed as often as it was recorded, and has the value and the
    children of its first occurrence.

    Attributes:
        question_id: The question's id; empty if the row has none.
        nodes: By id.
        root: The state before the first thought.
    """

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.question_id = str(row.get("question_id", ""))
        self._value_max = float(row.get("value_max", 1.0))
        names = RecordedNode.__slots__
        nodes = [RecordedNode(**{name: node[name] for name in names if name in node}) for node in row["nodes"]]
        self.nodes = {node.id: node for node in nodes}
        self._children: dict[int, list[RecordedNode]] = {}
        self._states: dict[tuple[int, str], RecordedNode] = {}
        (self.root,) = (node for node in nodes if node.parent is None)
        for node in nodes:
            if node.parent is not None:
                self._add(node, self.nodes[node.parent])

    def _add(self, node: RecordedNode, parent: RecordedNode) -> None:
        # a repeated sibling is the state of its first occurrence
        parent = self._states.get((parent.parent, parent.thought), parent) if parent.parent is not None else parent
        state = self._states.setdefault((parent.id, node.thought), node)
        self._children.setdefault(parent.id, []).append(state)

    @property
    def max_children(self) -> int:
        """Maximum number of recorded continuations of a state: with `k` of at least this a search gets all of them."""
        return max(map(len, self._children.values()), default=0)

    @property
    def max_depth(self) -> int:
        """Depth of the deepest node."""
        return max(node.depth for node in self.nodes.values())

    def children(self, node: RecordedNode) -> Sequence[RecordedNode]:
        """The recorded continuations of a state, in the order of the record."""
        return self._children.get(node.id, ())

    def was_expanded(self, node: RecordedNode) -> bool:
        """Whether the record holds the continuations of a state."""
        return node.id in self._children or bool(node.selected)

    def score(self, node: RecordedNode) -> float | None:
        """The value of a state over the largest possible one, in [0, 1]; None if it has none."""
        return None if node.value is None else node.value / self._value_max

    def find(self, steps: Sequence[str]) -> RecordedNode | None:
        """The state that these steps lead to; None if the record has no such state."""
        node: RecordedNode | None = self.root
        for step in steps:
            node = None if node is None else self._states.get((node.id, step.removesuffix("\n")))
        return node


@dataclass(frozen=True, slots=True)
class Replay:
    """What a search has come to in a recorded tree.

    Attributes:
        outcome: The search's own result.
        chosen: The recorded solution that the search would return; None if it has none.
        complete: The complete solutions that may vote, the best first, each once.
        num_opened: Different states whose continuations were read from the record.
        num_valued: Different states whose value was read.
        left_record: Ids of the states that the search opened and the recorded one did not. If there are any, the
            result is a lower bound.
    """

    outcome: SearchOutcome[Any]
    chosen: RecordedNode | None
    complete: tuple[RecordedNode, ...]
    num_opened: int
    num_valued: int
    left_record: tuple[int, ...]


class _Replayer:
    def __init__(self, search: StepSearch[Any, Any], tree: RecordedTree, rng: Random | None) -> None:
        self.search, self.tree, self.rng = search, tree, rng
        self.opened: set[int] = set()
        self.valued: set[int] = set()
        self.left: dict[int, None] = {}

    def answer(self, request: ExpandRequest) -> list[Continuation]:
        results = [self._continuation(node) for node in self._sampled(request)]
        results += [BLANK] * (request.n - len(results))
        for i in self.search.indices_to_score(request, results):
            results[i] = self._scored(request, results[i])
        return results

    def _sampled(self, request: ExpandRequest) -> Sequence[RecordedNode]:
        node = self.tree.find(self.search.tree.steps(request.node))
        if node is None or (request.finish and request.score == "none"):
            return []
        if not self.tree.was_expanded(node):
            self.left[node.id] = None
            return []
        self.opened.add(node.id)
        children = self.tree.children(node)
        if request.finish:
            children = [child for child in children if child.is_complete]
        if self.rng is not None and children:
            return self.rng.choices(children, k=request.n)
        return children[request.first : request.first + request.n]

    def _continuation(self, node: RecordedNode) -> Continuation:
        return Continuation(f"{node.thought}\n", 0, node.is_complete)

    def _scored(self, request: ExpandRequest, step: Continuation) -> Continuation:
        node = self.tree.find([*self.search.tree.steps(request.node), step.text])
        assert node is not None, "the continuation is from the record"
        self.valued.add(node.id)
        return Continuation(step.text, 0, step.terminal, self.tree.score(node))

    def recorded(self, node: Node) -> RecordedNode | None:
        match = self.tree.find(self.search.tree.steps(node.id))
        return match if match is not None and match.is_complete else None


def replay_search(search: StepSearch[Any, Any], tree: RecordedTree, rng: Random | None = None) -> Replay:
    """Run a search to its end in a recorded tree.

    The final answer that an ended search may request is not given: the record has no sample of that prompt.

    Args:
        search: A search that has not begun. One that ranks all proposals needs `k` of at least `tree.max_children`; one
            that limits the depth needs `max_depth` of at least `tree.max_depth`.
        rng: None: continuations of a state come in the order of the record, each once. Else each is sampled uniformly
            from the recorded ones, as a particle filter needs it.
    """
    replayer = _Replayer(search, tree, rng)
    while batch := search.ask():
        for request in batch:
            search.tell(request, replayer.answer(request))
    outcome = search.outcome()
    solutions = [match for node in outcome.terminals if (match := replayer.recorded(node)) is not None]
    complete = tuple({node.id: node for node in solutions}.values())
    chosen = None if outcome.chosen is None else replayer.recorded(outcome.chosen)
    return Replay(outcome, chosen, complete, len(replayer.opened), len(replayer.valued), tuple(replayer.left))
