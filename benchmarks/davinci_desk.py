"""`Desk`: settings judged through a store, and methods told of them, each once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from davinci_cells import figures
from davinci_settings import Setting, World
from reason.evals.verifying.figures import Figures
from reason.evals.verifying.judging import Form, Judged, StoredEntailment, every_pair, judge_pairs, judged_rows
from reason.evals.verifying.methods import Fit, Memo, Method, Told, out_of_fold


@dataclass(frozen=True)
class Measured:
    """A method on a setting: each claim by what was fitted to the other folds."""

    judged: list[Judged]
    told: list[Told]
    fits: dict[int, Fit]
    figures: Figures


@dataclass
class Desk:
    """Where tables get their numbers from.

    Attributes:
        world: The settings.
        entailment: What judges; its verdicts are stored.
        backend: Its identity as fusion and calibration know it.
        seed: Of the bootstrap.
    """

    world: World
    entailment: StoredEntailment
    backend: str
    seed: int = 0
    _judged: dict[tuple[str, Form, bool], list[Judged]] = field(default_factory=dict)
    _memos: dict[tuple[str, bool], Memo] = field(default_factory=dict)
    _done: dict[tuple[str, bool, str], Measured] = field(default_factory=dict)

    async def fill(self) -> None:
        """Judge every pair of every setting that the store does not have."""
        for setting in self.world.settings.values():
            for form in setting.forms:
                count = await judge_pairs(every_pair(setting.rows, form), self.entailment)
                say(f"{setting.key}, {form}: {count:,} pairs; {self.entailment.asked:,} judged so far")

    async def judged(self, setting: Setting, form: Form, disputed: bool = False) -> list[Judged]:
        """Claims with verdicts; those that are disputed only if asked for."""
        key = (setting.key, form, disputed)
        if key not in self._judged:
            rows = [row for row in setting.rows if disputed or row.gold != "disputed"]
            self._judged[key] = await judged_rows(rows, form, self.entailment)
        return self._judged[key]

    async def measure(self, key: str, method: Method, *, disputed: bool = False) -> Measured:
        """A method on a setting; what was measured already is not measured again.

        Args:
            key: The setting.
            method: The method.
            disputed: Whether disputed claims are among those that are measured.
        """
        named = replace(method, name="").__repr__()
        if (key, disputed, named) not in self._done:
            setting = self.world.settings[key]
            judged = await self.judged(setting, method.form, disputed)
            memo = self._memos.setdefault((key, disputed), {})
            told, fits = out_of_fold(judged, method, backend=self.backend, source=key, memo=memo)
            found = Measured(judged, told, fits, figures(judged, told, seed=self.seed))
            self._done[key, disputed, named] = found
            say(f"{key}: {method.name}: accuracy {found.figures.values['accuracy']:.3f}")
        return self._done[key, disputed, named]


def chosen(world: World, keys: Sequence[str]) -> list[Setting]:
    """The settings of these names that have claims."""
    return [world.settings[key] for key in keys if world.settings[key].rows]


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)
