"""Workers on a shared text whose every probability is known: what one sees, is a text put together by its layout."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping

from reason.core.errors import BackendUnavailable, ContextTooLong
from reason.core.messages import Usage
from reason.reasoning.hogwild.prompts import CHECK, NAMES, opener, step_prefix
from reason.serving.worker_group import GroupStep, WorkerGroupConfig, WorkerToken

from support.scripted_model import END, Distribution, Script, ScriptedModel

Seen = Callable[[int, str], Distribution]
"""Distribution of the next character of a worker, by what it sees."""


def next_character(
    steps: Mapping[tuple[str, int], str],
    view: str,
    otherwise: str = "Hm. " * 3 + "\n\n",
    names: tuple[str, ...] = NAMES[:2],
) -> str:
    """The next character of the step at the end of a view, and `END` after the step.

    Args:
        steps: The text after prefix, opener and redundancy check, by worker and number of the step.
        view: What the worker sees.
        otherwise: The text of steps that are not listed.
        names: The workers.
    """
    starts = {(name, n): view.rfind(step_prefix(name, n)) for name in names for n in range(1, 40)}
    name, number = max(starts, key=lambda key: starts[key])
    written = view[starts[name, number] + len(step_prefix(name, number)) :]
    for given in (opener(0, names), opener(1, names), CHECK):
        written = written.removeprefix(given)
    text = steps.get((name, number), otherwise) + END
    assert text.startswith(written), (text, written)
    return text[len(written)]


class ScriptedWorkers(ScriptedModel, changed={"kv_sharing": True}):
    """A `ScriptedModel` whose workers read one another's text.

    Args:
        seen: What workers write next.
        script: What samples write; workers do not ask for it.
    """

    def __init__(self, seen: Seen, script: Script = lambda text: {END: 1.0}, **settings: object) -> None:
        super().__init__(script, **settings)
        self.seen = seen
        self.groups: list[ScriptedGroup] = []

    async def start_workers(self, config: WorkerGroupConfig) -> ScriptedGroup:
        self.groups.append(ScriptedGroup(self, config))
        return self.groups[-1]


class ScriptedGroup:
    """Workers under way; `passes` are those that were run, `closed` whether it is."""

    def __init__(self, model: ScriptedWorkers, config: WorkerGroupConfig) -> None:
        self.model, self.config = model, config
        self.history = model.render(config.prompt)
        self.steps = [""] * config.num_workers
        self.passes: list[GroupStep] = []
        self.closed = False
        self._random = [random.Random(f"{config.seed}:{w}") for w in range(config.num_workers)]
        self._last: list[int | None] = [None] * config.num_workers
        self._given, self._drawn = len(self.history), 0

    @property
    def num_workers(self) -> int:
        return self.config.num_workers

    @property
    def usage(self) -> Usage:
        return Usage(prompt_tokens=self._given, completion_tokens=self._drawn)

    def view(self, worker: int) -> str:
        config = self.config
        rest = "".join(text for w, text in enumerate(self.steps) if w != worker)
        if config.num_workers == 1 or config.layout == "interleaved":
            return self.history + self.steps[worker]
        others = config.others_header if config.layout == "combined" else ""
        return self.history + others + rest + config.own_header + self.steps[worker]

    async def advance(self, step: GroupStep) -> list[WorkerToken | None]:
        await asyncio.sleep(0)
        if self.closed:
            raise BackendUnavailable("closed")
        self.passes.append(step)
        for worker in step.moves:
            self.history += self.steps[worker]
            self.steps[worker] = ""
        read = [0] * self.num_workers
        for worker, fed in enumerate(step.inputs):
            if fed is not None:
                added = ("" if fed.token is None else chr(fed.token)) + fed.text
                self.steps[worker] += added
                read[worker] = len(added)
                self._given += len(added) - (fed.token is not None and fed.token == self._last[worker])
        drawn: list[WorkerToken | None] = [None] * self.num_workers
        for worker, fed in enumerate(step.inputs):
            if fed is None:
                continue
            view = self.view(worker)
            if len(view) > self.model._context:
                raise ContextTooLong("too long", tokens=len(view), limit=self.model._context)
            chances = {c: p for c, p in self.model.seen(worker, view).items() if c not in self.config.banned_texts}
            (character,) = self._random[worker].choices(list(chances), list(chances.values()))
            self._last[worker] = ord(character)
            self._drawn += 1
            drawn[worker] = WorkerToken(
                token=ord(character),
                logprob=math.log(chances[character]),
                text="" if character == END else character,
                is_eos=character == END,
                num_read=read[worker],
            )
        return drawn

    async def aclose(self) -> None:
        self.closed = True
