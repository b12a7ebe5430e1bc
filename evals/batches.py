"""Evaluations whose requests are sent in batches, at half the price (`serving/litellm/batches.py`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..agents.reasoner import Reasoner
from ..core.errors import UserError
from ..core.settings import Settings
from ..core.store.protocol import BatchStore
from ..serving.model import LanguageModel
from .plan import EvalPlan
from .run_directory import StoredRun, open_run_store, read_manifest, run_store_path


def batch_scope(plan: EvalPlan) -> str:
    """What the batches of an evaluation are found by, also by its other shards."""
    return f"eval-{plan.digest}"


def check_batches(plan: EvalPlan, settings: Settings) -> None:
    """Refuse what cannot be combined with batches, before anything is loaded or written.

    Raises:
        UserError: The plan limits seconds, or its main model has no batch API.
    """
    from ..serving.litellm.batches import BATCH_PROVIDERS
    from ..serving.litellm.endpoints import endpoint_settings

    if plan.budget.seconds is not None:
        raise UserError(
            f"--budget seconds={plan.budget.seconds:g} cannot be combined with --batch: a batch takes up to a day",
            hint="limit tokens, calls or dollars",
        )
    name = plan.models["main"]
    if name.partition("/")[0] not in BATCH_PROVIDERS or endpoint_settings(name, settings) is not None:
        raise UserError(
            f"--batch: model {name!r} has no batch API",
            hint="leave out --batch, or take a model of openai/… at a single endpoint",
        )


def use_batches(reasoner: Reasoner, plan: EvalPlan, store: BatchStore, report: Callable[[str], None]) -> None:
    """Send the requests of an evaluation in batches; models without a batch API are called as usual."""

    def wrap(model: LanguageModel) -> LanguageModel:
        from ..serving.litellm.batches import batched

        return batched(model, store, batch_scope(plan), report) or model

    reasoner.wrap_models(wrap)


async def refuse_open_batches(plan: EvalPlan, store: BatchStore) -> None:
    """Refuse to go on without batches while some are in flight, whose requests would be paid twice.

    Raises:
        UserError: There are some.
    """
    running = sum(b.status in ("submitting", "submitted") for b in await store.list_batches(f"{batch_scope(plan)}/"))
    if running:
        raise UserError(
            f"{running} batches of this run are in flight",
            hint="resume it with --batch, which waits for them; or cancel them: reason eval cancel-batches DIR",
        )


async def cancel_run_batches(directory: Path, settings: Settings) -> int:
    """Cancel the batches of a run that are in flight; returns their number.

    Raises:
        DataError: The directory holds no run, or its store is not there.
        BackendError: A provider refused.
    """
    from ..serving.litellm.batches import cancel_batches
    from ..serving.litellm.providers import find_target

    run = StoredRun(directory, read_manifest(directory), rows=[])  # which may have no rows yet
    opened = await open_run_store(run_store_path(run))
    try:
        return await cancel_batches(opened, batch_scope(run.manifest.plan), lambda name: find_target(name, settings))
    finally:
        await opened.aclose()
