"""`Gangs`: passes of workers between their arrival at vLLM's scheduler and the step in which they are computed.

Apart from vLLM: requests are taken as they come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .part import Part


@dataclass
class _Pass:
    """A pass that is being gathered or waits for its step.

    Attributes:
        size: Workers that read in it.
        members: Their requests, as they have come, by the request's name.
    """

    size: int
    members: dict[str, Any] = field(default_factory=dict)


class Gangs:
    """The passes that are on their way."""

    def __init__(self) -> None:
        self._held: dict[str, _Pass] = {}
        self._released: dict[str, _Pass] = {}

    def arrive(self, part: Part, name: str, request: Any) -> list[Any]:
        """A worker has come.

        Args:
            part: What its request is for the group.
            name: Of the request.
            request: The request itself.

        Returns:
            The requests that may go on: none while somebody is missing, else all of the pass, by worker.
        """
        held = self._held.setdefault(part.group, _Pass(len(part.reading)))
        held.members[name] = part.worker, request
        if len(held.members) < held.size:
            return []
        self._released[part.group] = self._held.pop(part.group)
        return [request for _, request in sorted(held.members.values(), key=lambda pair: pair[0])]

    def forget(self, names: Iterable[str]) -> None:
        """Requests have ended: a pass that they were to be in does not come about."""
        gone = set(names)
        for passes in (self._held, self._released):
            for group in [g for g, one in passes.items() if gone & one.members.keys()]:
                del passes[group]

    def judge(self, scheduled: Mapping[str, int], idle: bool) -> list[Any]:
        """See what a step makes of the passes that wait for it.

        Args:
            scheduled: Tokens of each request in it.
            idle: Whether nothing is under way that could make room for those who wait.

        Returns:
            Requests of passes that are lost.
        """
        lost: list[Any] = []
        for group, one in list(self._released.items()):
            got = [scheduled.get(name, 0) for name in one.members]
            wanted = [len(request.prompt_token_ids) for _, request in one.members.values()]
            if got == wanted:
                del self._released[group]
            elif any(got) or idle:
                del self._released[group]
                lost += [request for _, request in one.members.values()]
        return lost
