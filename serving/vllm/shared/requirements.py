"""What workers on a shared cache need of vLLM, the model and the settings: refused at the start where it is not so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....core.errors import UserError
from ....core.settings import VllmSettings
from ...local.families import OWN_FAMILIES, ModelShape

TESTED = ("0.32",)
"""Versions of vLLM, to the minor number, that this was tested with: what it overrides is no stable interface."""

SCHEDULER = "reason.serving.vllm.shared.gang_scheduler.GangScheduler"
ROWS = "reason.serving.vllm.shared.rows:WorkerRows"

_OURS = ("scheduler_cls", "async_scheduling", "attention_config", "attention_backend", "kv_cache_dtype")
_IN_THE_WAY = ("speculative_config", "data_parallel_size", "decode_context_parallel_size")


def shared_arguments(folder: Path, settings: VllmSettings, version: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `AsyncEngineArgs` by which an engine's workers can share their cache.

    Args:
        folder: The model's folder.
        settings: What the user chose.
        version: Of vLLM.
        given: The engine's other arguments.

    Raises:
        UserError: This version of vLLM is not a tested one; the model's attention is none that can be shared; or a
            setting stands in the way.
        DataError: The model's configuration is missing or broken.
    """
    minor = ".".join(version.split(".")[:2])
    if minor not in TESTED:
        raise UserError(
            f"setting vllm.shared_workers: not tested with vLLM {version}",
            hint=f"install vLLM {' or '.join(TESTED)}, use local/… for workers on one cache, or leave the setting off",
        )
    if not ModelShape.is_ours(folder):
        raise UserError(
            "setting vllm.shared_workers: this model's attention is none whose cache can be shared",
            hint=f"models of type {', '.join(OWN_FAMILIES)} without sliding windows are; else leave the setting off",
        )
    if settings.draft != "off":
        raise UserError("setting vllm.draft does not go with vllm.shared_workers", hint="leave one of them out")
    taken = sorted(set(settings.engine) & {*_OURS, *_IN_THE_WAY})
    if taken:
        raise UserError(
            f"setting vllm.engine.{taken[0]} does not go with vllm.shared_workers", hint="leave one of them out"
        )
    processors = [*given["logits_processors"], ROWS]
    return {"scheduler_cls": SCHEDULER, "async_scheduling": False, "logits_processors": processors}
