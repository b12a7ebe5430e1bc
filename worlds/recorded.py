"""`recorded/POOL#DATASET:QUESTION`: tools whose results are those of recorded runs on one question.

A call gets the result that an equal call had in a run with the same calls before it; a call that no run made fails. So
the runs that `recorded/POOL:MODEL` replays get their own results, and a fork follows a run of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from pydantic import JsonValue

from ..agents.loop.tool import ExecutableTool, ToolCallContext
from ..core.errors import UserError
from ..core.messages import Tool
from ..core.store.records import canonical_json
from ..serving.recorded.model import PREFIX
from ..serving.recorded.pool import NotInPool, Pool, PoolSample, read_pool


class RecordedWorld:
    """The calls that were made so far, and the runs that may have made them.

    Args:
        declarations: The question's tools; one without an effect is taken for a write.
        runs: Of each recorded run, its calls and their results.
        source: The string that names the tools.
        origin: What it is a fork of.
        made: The calls that were made before.
    """

    def __init__(
        self,
        declarations: Sequence[Tool],
        runs: Sequence[Sequence[tuple[str, str]]],
        source: str,
        *,
        origin: RecordedWorld | None = None,
        made: Sequence[str] = (),
    ) -> None:
        self._declarations, self._runs, self._source, self._origin = declarations, runs, source, origin
        self._made, self._num_before = list(made), len(made)
        self._forks: dict[str, RecordedWorld] = {}
        self.is_new = True
        self.tools: Mapping[str, ExecutableTool] = {one.name: self._tool(one) for one in declarations}

    def _tool(self, declaration: Tool) -> ExecutableTool:
        async def call(arguments: Mapping[str, JsonValue], context: ToolCallContext) -> str:
            return self.result(declaration.name, arguments)

        effect = declaration.effect or "write"
        return ExecutableTool(declaration=declaration, call=call, effect=effect, source=self._source, world=self)

    def result(self, name: str, arguments: Mapping[str, JsonValue]) -> str:
        """The recorded result of a call.

        Raises:
            NotInPool: No run made it after the calls so far.
        """
        form = _form(name, arguments)
        made = [*self._made, form]
        for run in self._runs:
            if sorted(call for call, _ in run[: len(made)]) == sorted(made):
                self._made = made
                return [result for call, result in run if call == form][made.count(form) - 1]
        raise NotInPool(f"no recorded run calls {name} here", hint="recorded turns cannot be changed")

    async def fork(self, name: str) -> RecordedWorld:
        """See `World.fork`."""
        known = self._forks.get(name)
        if known is not None:
            known.is_new = False
            return known
        self._forks[name] = fork = RecordedWorld(
            self._declarations, self._runs, self._source, origin=self._origin or self, made=self._made
        )
        return fork

    async def changes(self) -> list[str]:
        """The calls that were made since it was forked."""
        return self._made[self._num_before :]

    async def details(self) -> str:
        """Nothing: recorded calls say what they changed."""
        return ""

    async def commit(self, *, outward_links: bool = False) -> None:
        """Let the origin have made this fork's calls."""
        if self._origin is not None:
            self._origin._made = list(self._made)

    async def close(self) -> None:
        """Do nothing."""


def recorded_tools(spec: str) -> list[ExecutableTool]:
    """The tools of a question of a pool.

    Raises:
        UserError: The string names no question, or the pool has no run on it.
        DataError: The pool cannot be read.
    """
    file, _, name = spec.removeprefix(PREFIX).partition("#")
    path = Path(file).expanduser()
    stat = path.stat() if path.is_file() else None
    pool = _pool(path, 0 if stat is None else stat.st_mtime_ns)
    samples = [one for one in pool.samples if f"{one.dataset}:{one.question_id}" == name and one.turns is not None]
    if not samples:
        raise UserError(f"{path} has no run on {name!r}", hint=f"{PREFIX}POOL#DATASET:QUESTION names one")
    tools = {tool.name: tool for one in samples for tool in one.tools or ()}
    return list(RecordedWorld(list(tools.values()), [_calls(one) for one in samples], spec).tools.values())


@lru_cache(maxsize=2)
def _pool(path: Path, _changed: int) -> Pool:
    return read_pool(path)


def _calls(run: PoolSample) -> list[tuple[str, str]]:
    """The calls of a run that a tool can have executed, with their results; without one it is empty."""
    return [
        (_form(call.name, call.arguments), turn.results[i] if i < len(turn.results) else "")
        for turn in run.turns or ()
        for i, call in enumerate(turn.calls)
        if isinstance(call.arguments, dict)
    ]


def _form(name: str, arguments: Mapping[str, JsonValue]) -> str:
    return f"{name}({canonical_json(dict(arguments))})"
