"""An evaluation on Ray: one task a shard, each with its own engine or server.

A shard is a run of its own, in a directory below that of the run. Ray replaces a worker that dies, and the shard
resumes from its directory if the new worker sees the same disk; otherwise it starts again, with the same result. The
merged rows are those of the undivided run, since an item's seed depends on the item and the run's seed only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.errors import BackendError, ReasonError, UserError
from ..core.settings import ProviderSettings, Settings
from .plan import DatasetSource, EvalPlan, software_versions
from .results import ResultRow
from .run_directory import STORE, RunDirectory, RunManifest, read_rows
from .runner import RunObserver, default_label, evaluate, run_keys
from .task import Task, open_task

RETRIES = 3
"""How often the shard of a dead worker is begun again."""
POLL_S = 0.5
SHARDS = "shards"


async def evaluate_on_ray(
    plan: EvalPlan,
    task: Task,
    source: DatasetSource,
    out: Path,
    settings: Settings,
    *,
    label: str = "",
    resume: bool = False,
    workers: int = 2,
    endpoints: Sequence[str] = (),
    concurrency: int = 16,
    observer: RunObserver | None = None,
) -> list[ResultRow]:
    """Run an evaluation on Ray's workers, or resume it.

    Connects to the cluster that `RAY_ADDRESS` names, or starts one on this machine and ends it again.

    Args:
        task: The dataset; every worker opens it again from `source`.
        source: Where it is opened from; a file must be where the workers see it.
        endpoints: Servers of the main model, one a worker in turn; empty gives every worker an engine of its own.

    Raises:
        UserError: Ray is not installed, or the directory holds another run.
        BackendError: A worker died more often than it may.
        ReasonError: What a shard raised.
    """
    ray = _ray()
    folders = [out / SHARDS / str(i) for i in range(workers)]
    full = RunManifest(
        plan=plan,
        task=source,
        label=label or default_label(plan),
        keys=run_keys(plan, task),
        merged=workers,
        environment=software_versions(),
        store=", ".join(f"{SHARDS}/{i}/{STORE}" for i in range(workers)),
    )
    shares = [_with_endpoint(settings, plan, endpoints, i) for i in range(workers)]
    with RunDirectory(out) as directory:
        before = {row.key: row for row in directory.begin(full, resume=resume) if row.error is None}
        if not all(key in before for key in full.keys):
            before = await _compute(ray, full, folders, shares, concurrency, observer or RunObserver())
        directory.finish(full, list(before.values()))
    return [before[key] for key in full.keys]


async def _compute(
    ray: Any,
    full: RunManifest,
    folders: Sequence[Path],
    shares: Sequence[Settings],
    concurrency: int,
    observer: RunObserver,
) -> dict[tuple[str, int], ResultRow]:
    """All rows, from one task a shard."""
    started = not ray.is_initialized()
    if started:
        await asyncio.to_thread(ray.init, log_to_driver=False, include_dashboard=False, configure_logging=False)
    try:
        on_gpu = full.plan.models["main"].startswith("vllm/") and "GPU" in ray.cluster_resources()
        remote = ray.remote(max_retries=RETRIES, retry_exceptions=False, num_cpus=1, num_gpus=1 if on_gpu else 0)(
            run_shard
        )
        tasks = [
            remote.remote(
                full.plan.model_dump_json(),
                full.task.model_dump_json(),
                str(directory.absolute()),
                shares[i].model_dump(mode="json"),
                full.label,
                (i, len(folders)),
                concurrency,
            )
            for i, directory in enumerate(folders)
        ]
        try:
            return await _gather(ray, tasks, folders, len(full.keys), observer)
        except BaseException:
            for one in tasks:
                ray.cancel(one, force=False)
            raise
    finally:
        if started:
            await asyncio.to_thread(ray.shutdown)


def run_shard(
    plan: str, source: str, out_dir: str, settings: dict[str, Any], label: str, shard: tuple[int, int], concurrency: int
) -> list[str]:
    """The rows of one shard, in a worker. Takes and returns JSON, so that nothing depends on how Ray moves objects."""
    decided, where = EvalPlan.model_validate_json(plan), DatasetSource.model_validate_json(source)
    out = Path(out_dir)
    rows = asyncio.run(
        evaluate(
            decided,
            open_task(where),
            where,
            out,
            Settings(**settings),
            label=label,
            resume=True,
            shard=shard,
            concurrency=concurrency,
        )
    )
    return [row.model_dump_json() for row in rows]


async def _gather(
    ray: Any, tasks: Sequence[Any], folders: Sequence[Path], total: int, observer: RunObserver
) -> dict[tuple[str, int], ResultRow]:
    """Wait for all shards; report rows as they appear in their directories, if this machine sees them."""
    values: set[tuple[str, int]] = set()
    begun = [row for directory in folders for row in read_rows(directory, torn_end=True)]
    observer.begin(total, begun)
    values.update(row.key for row in begun)
    waiting = list(tasks)
    while waiting:
        done, waiting = await asyncio.to_thread(ray.wait, waiting, num_returns=len(waiting), timeout=POLL_S)
        for one in done:
            await asyncio.to_thread(_result, ray, one)  # an error ends the evaluation at once
        for directory in folders:
            for row in read_rows(directory, torn_end=True):
                if row.key not in values:
                    values.add(row.key)
                    observer.row(row)
    rows = [ResultRow.model_validate_json(row) for one in tasks for row in _result(ray, one)]
    return {row.key: row for row in rows}


def _result(ray: Any, task: Any) -> list[str]:
    try:
        results: list[str] = ray.get(task)
        return results
    except ray.exceptions.RayTaskError as e:
        if isinstance(e.cause, ReasonError):
            raise e.cause from None
        raise BackendError(f"a shard failed: {e.cause}") from e
    except ray.exceptions.RayError as e:
        raise BackendError(
            f"a worker died more than {RETRIES} times: {type(e).__name__}", hint="--resume continues from what is saved"
        ) from e


def _with_endpoint(settings: Settings, plan: EvalPlan, endpoints: Sequence[str], worker: int) -> Settings:
    """The settings of one worker: the main model's provider at its own server."""
    if not endpoints:
        return settings
    provider = plan.models["main"].partition("/")[0]
    if provider in ("local", "vllm"):
        raise UserError(f"a model {provider}/… has no server", hint="leave --endpoint away, or use hosted_vllm/…")
    known = settings.providers.get(provider, ProviderSettings())
    mine = known.model_copy(update={"api_base": endpoints[worker % len(endpoints)], "endpoints": ()})
    return settings.model_copy(update={"providers": {**settings.providers, provider: mine}})


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as e:
        raise UserError("--executor ray needs Ray", hint="pip install 'reason-orchestrator[ray]'") from e
    return ray
