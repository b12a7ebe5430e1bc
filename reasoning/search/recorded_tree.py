"""Searches over recorded trees: expansions and scores are answered from a record instead of by models.

    tree = RecordedTree.from_row(row)
    replay = replay_search(BeamSearch(BeamOptions(width=5, k=tree.max_children)), tree)
    replay.complete, replay.num_opened, replay.left_record

A row is one JSON object (docs/search-trees.md describes the fields):

    {"question_id": "q1", "value_max": 60, "nodes": [
        {"id": 0, "parent": null, "depth": 0, "thought": ""},
        {"id": 1, "parent": 0, "depth": 1, "thought": "4 + 4 = 8", "value": 60, "selected": true},
        {"id": 2, "parent": 1, "depth": 2, "thought": "8 * 3 = 24", "value": 60, "answer": "24", "correct": true}]}

A record holds what one search explored. Another search may open a node that the recorded one did not; nothing follows
that node here, so the replay's result is a lower bound of what the search would have reached, and says so.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...core.errors import DataError
from .core import ExpandRequest, SearchOutcome, StepSearch
from .tree import Continuation, Node

BLANK = Continuation("", 0)
"""Stands for a continuation that the record does not hold."""


class RecordedNode(BaseModel):
    """One state of a recorded search. Unknown fields of a row are ignored.

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

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    id: int
    parent: int | None
    depth: Annotated[int, Field(ge=0)]
    thought: str
    value: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    selected: bool | None = None
    answer: str | None = None
    correct: bool | None = None

    @property
    def is_complete(self) -> bool:
        """Whether it is a complete solution: it has an answer, or a verdict on one."""
        return self.answer is not None or self.correct is not None


class _Row(BaseModel):
    """The fields of a row that a tree is made of."""

    model_config = ConfigDict(extra="ignore", strict=True)

    question_id: str = ""
    value_max: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    nodes: list[RecordedNode]


class RecordedTree:
    """The tree of one recorded search.

    Siblings of equal thought are one state: it is proposed as often as it was recorded, and has the value and the
    children of its first occurrence.

    Attributes:
        question_id: The question's id; empty if the row has none.
        nodes: By id.
        root: The state before the first thought.
    """

    def __init__(self, row: _Row) -> None:
        self.question_id = row.question_id
        self.nodes: dict[int, RecordedNode] = {}
        self._value_max = row.value_max
        for node in row.nodes:
            if node.id in self.nodes:
                raise self._error(node, "the id occurs twice", "number the nodes of a tree from 0")
            self.nodes[node.id] = node
        self._children: dict[int, list[RecordedNode]] = {}
        self._states: dict[tuple[int, str], RecordedNode] = {}
        roots = [node for node in row.nodes if node.parent is None]
        if len(roots) != 1:
            where = f" of {self.question_id}" if self.question_id else ""
            raise DataError(
                f"the recorded tree{where} has {len(roots)} nodes without a parent",
                hint="give exactly one root, with parent null and depth 0",
            )
        self.root = roots[0]
        for node in row.nodes:
            self._add(node)

    def _add(self, node: RecordedNode) -> None:
        if node.value is not None and node.value > self._value_max:
            raise self._error(
                node, f"the value {node.value:g} is above value_max, {self._value_max:g}", "set the tree's value_max"
            )
        if node.parent is None:
            if node.depth:
                raise self._error(node, f"the root has depth {node.depth}", "a root has depth 0")
            return
        parent = self.nodes.get(node.parent)
        if parent is None:
            raise self._error(
                node, f"there is no parent {node.parent}", "give every node's parent, or null for the root"
            )
        if node.depth != parent.depth + 1:
            message = f"the depth is {node.depth} and that of its parent {parent.id} is {parent.depth}"
            raise self._error(node, message, "a node is one deeper than its parent")
        if parent.is_complete:
            raise self._error(
                node, f"the parent {parent.id} is a complete solution", "only the last node has an answer"
            )
        if not node.thought.strip():
            raise self._error(node, "the thought is empty", "only the root has no thought")
        # a repeated sibling is the state of its first occurrence
        parent = self._states.get((parent.parent, parent.thought), parent) if parent.parent is not None else parent
        state = self._states.setdefault((parent.id, node.thought), node)
        self._children.setdefault(parent.id, []).append(state)

    def _error(self, node: RecordedNode, message: str, hint: str) -> DataError:
        where = f" of {self.question_id}" if self.question_id else ""
        return DataError(f"node {node.id} of the recorded tree{where}: {message}", hint=hint)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RecordedTree:
        """A tree from one row.

        Raises:
            DataError: A field is missing or of the wrong type, or the nodes are not a tree.
        """
        try:
            parsed = _Row.model_validate(dict(row))
        except ValidationError as e:
            first = e.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"]))
            raise DataError(
                f"recorded tree {row.get('question_id', '')!s}: {field}: {first['msg']}, got {first['input']!r:.80}",
                hint="docs/search-trees.md describes the fields",
            ) from e
        return cls(parsed)

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


def read_recorded_trees(path: str | Path) -> Iterator[RecordedTree]:
    """The trees of a file, one row a line; `.gz` is unpacked.

    Raises:
        DataError: The file cannot be read, or a line is no JSON object or no tree; the message has its number.
    """
    try:
        content = Path(path).read_bytes()
        text = (gzip.decompress(content) if str(path).endswith(".gz") else content).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as e:
        raise DataError(f"cannot read the recorded trees {path}: {e}", hint="give JSON lines, or them in a .gz") from e
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise DataError("the line is not an object", hint="write one tree a line")
            tree = RecordedTree.from_row(row)
        except json.JSONDecodeError as e:
            raise DataError(f"{path} line {number}: this is no JSON: {e}", hint="write one tree a line") from e
        except DataError as e:
            raise DataError(f"{path} line {number}: {e.message}", hint=e.hint) from e
        yield tree


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
