"""An evaluation on Ray: one task a shard, each with its own engine or server, on a node that has the model.

A shard is a run of its own, in a directory below that of the run. Ray starts the shard of a worker or node that dies
again, on another node if need be. There the shard finds its work in the run store: in its directory, if all nodes see
one disk, or in a Postgres database, where the runs of the dead worker are free when its lease has expired. The merged
rows are those of the undivided run, since an item's seed depends on the item and the run's seed only.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..core.errors import BackendError, ReasonError, UserError
from ..core.extras import missing_package
from ..core.settings import ProviderSettings, Settings
from .plan import DatasetSource, EvalPlan, software_versions
from .results import ResultRow
from .run_directory import MANIFEST, SHARDS, STORE, RunDirectory, RunManifest, begun_store, read_manifest, read_rows
from .runner import RunObserver, default_label, evaluate, run_keys, stored_location
from .task import Task, open_task

RETRIES = 3
"""How often the shard of a dead worker is begun again."""
RELEASE_S = 60.0
"""Maximum time for which a shard waits for its former worker to end, after the end of that worker's driver."""
POLL_S = 0.5


async def evaluate_on_ray(
    plan: EvalPlan,
    task: Task,
    source: DatasetSource,
    out: Path,
    settings: Settings,
    *,
    address: str | None = None,
    label: str = "",
    resume: bool = False,
    workers: int = 2,
    endpoints: Sequence[str] = (),
    concurrency: int = 16,
    store: Path | str | None = None,
    observer: RunObserver | None = None,
) -> list[ResultRow]:
    """Run an evaluation on Ray's workers, or resume it.

    A shard is placed where its model is: on the node that its endpoint is on, if it is on one; else on a node with a
    Ray resource of the main model's name, of which it takes one unit, if the cluster has any; else on any node, spread
    over all.

    Args:
        task: The dataset; every worker opens it again from `source`.
        source: Where it is opened from; a file must be where the workers see it.
        address: The cluster, as `ray.init` takes it; None is that of the environment variable `RAY_ADDRESS`, or a new
            one on this machine, which ends with the evaluation.
        workers: Number of shards; a resumed run keeps its own.
        endpoints: Servers of the main model, one a shard in turn; empty gives every worker an engine of its own.
        store: The run store of all shards, the URL of a Postgres database; None is that of a resumed run, or a file in
            each shard's directory.

    Raises:
        UserError: Ray is not installed, its cluster cannot be reached, or the directory holds another run.
        BackendError: A worker died more often than it may.
        ReasonError: What a shard raised.
    """
    ray = _ray()
    if resume and (out / MANIFEST).exists():
        workers = read_manifest(out).merged or workers
        store = store or begun_store(out)
    folders = [out / SHARDS / str(i) for i in range(workers)]
    full = RunManifest(
        plan=plan,
        task=source,
        label=label or default_label(plan),
        keys=run_keys(plan, task),
        merged=workers,
        environment=software_versions(),
        store=", ".join(f"{SHARDS}/{i}/{STORE}" for i in range(workers)) if store is None else stored_location(store),
    )
    shares = [_with_endpoint(settings, plan, endpoints, i) for i in range(workers)]
    started = await asyncio.to_thread(_connect, ray, address)
    try:
        with RunDirectory(out) as directory:
            before = {row.key: row for row in directory.begin(full, resume=resume) if row.error is None}
            if not all(key in before for key in full.keys):
                placement = await asyncio.to_thread(_placement, ray, plan.models["main"], endpoints, workers)
                before = await _compute(
                    ray, full, folders, shares, placement, concurrency, store, observer or RunObserver()
                )
            directory.finish(full, list(before.values()))
    finally:
        if started:
            await asyncio.to_thread(ray.shutdown)
    return [before[key] for key in full.keys]


def _connect(ray: Any, address: str | None) -> bool:
    """Connect to the cluster; returns whether this program was not connected before."""
    if ray.is_initialized():
        return False
    try:
        ray.init(address, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    except (ConnectionError, ray.exceptions.RaySystemError, ray.exceptions.AuthenticationError) as e:
        raise UserError(
            f"cannot reach the Ray cluster at {address}: {e}", hint="`ray status` on this machine shows its cluster"
        ) from e
    return True


def _placement(ray: Any, model: str, endpoints: Sequence[str], shards: int) -> list[dict[str, Any]]:
    """Ray's options that place each shard where its model is."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    resources = ray.cluster_resources()
    nodes = {node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}
    common = {
        "num_cpus": 1,
        "num_gpus": 1 if model.startswith("vllm/") and "GPU" in resources else 0,
        "resources": {model: 1} if model in resources else {},
    }
    options = []
    for shard in range(shards):
        node = nodes.get(_host_address(endpoints[shard % len(endpoints)])) if endpoints else None
        # soft: when the node dies, the shard goes on at another one
        strategy = "SPREAD" if node is None else NodeAffinitySchedulingStrategy(node, soft=True)
        options.append({**common, "scheduling_strategy": strategy})
    return options


def _host_address(url: str) -> str:
    """The address of a URL's host; empty if it has none."""
    try:
        return socket.gethostbyname(urlsplit(url).hostname or "")
    except (OSError, ValueError):
        return ""


async def _compute(
    ray: Any,
    full: RunManifest,
    folders: Sequence[Path],
    shares: Sequence[Settings],
    placement: Sequence[Mapping[str, Any]],
    concurrency: int,
    store: Path | str | None,
    observer: RunObserver,
) -> dict[tuple[str, int], ResultRow]:
    """All rows, from one task a shard."""
    remote = ray.remote(max_retries=RETRIES, retry_exceptions=False)(run_shard)
    tasks = [
        remote.options(**placement[i]).remote(
            full.plan.model_dump_json(),
            full.task.model_dump_json(),
            str(directory.absolute()),
            shares[i].model_dump(mode="json"),
            full.label,
            (i, len(folders)),
            concurrency,
            None if store is None else str(store),
        )
        for i, directory in enumerate(folders)
    ]
    try:
        return await _gather(ray, tasks, folders, len(full.keys), observer)
    except BaseException:
        for one in tasks:
            ray.cancel(one, force=False)
        raise


def run_shard(
    plan: str,
    source: str,
    out_dir: str,
    settings: dict[str, Any],
    label: str,
    shard: tuple[int, int],
    concurrency: int,
    store: str | None,
) -> list[str]:
    """The rows of one shard, in a worker. Takes and returns JSON, so that nothing depends on how Ray moves objects."""
    decided, where = EvalPlan.model_validate_json(plan), DatasetSource.model_validate_json(source)
    out = Path(out_dir)
    with RunDirectory(out, wait_s=RELEASE_S):
        pass  # Ray ends the workers of a killed driver, but not before it has noticed its end
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
            store=store,
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
        raise missing_package("--executor ray", e.name, "ray") from e
    return ray
