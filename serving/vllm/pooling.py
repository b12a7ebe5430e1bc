"""vLLM as a pooling engine in this program: it computes numbers from texts, and generates nothing."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from ...core.errors import BackendError, BackendUnavailable, UserError
from ...core.settings import VllmSettings
from ..model_files.checkpoint import read_config
from ..model_files.find import ModelFiles
from ..transformers_loading import first_line
from .engine import launch_engine, prepare_vllm, stop_engine
from .options import size_arguments

MAX_SUBMITTED = 256
"""Maximum inputs that are submitted to the engine at a time."""

_RESERVED = ("model", "runner", "pooler_config", "skip_tokenizer_init", "enable_prefix_caching")


class PoolingEngine:
    """vLLM's asynchronous engine on a pooling model.

    Attributes:
        context: Longest input in tokens.
        dtype: Number format.
    """

    def __init__(self, name: str, engine: Any) -> None:
        self._name = name
        self._engine: Any = engine
        self._gate = asyncio.Semaphore(MAX_SUBMITTED)
        self._work: set[asyncio.Task[Any]] = set()
        config = engine.model_config
        self.context: int = config.max_model_len
        self.dtype = str(config.dtype).removeprefix("torch.")

    @classmethod
    def start(cls, files: ModelFiles, settings: VllmSettings, step_tag: int | None) -> PoolingEngine:
        """Start the engine; blocks for half a minute or more.

        Args:
            step_tag: Token whose rows a model that scores tokens returns; None for all other models.

        Raises:
            UserError: vLLM is missing or refuses the settings; or the script that starts it has no main guard.
            BackendUnavailable: The engine did not come up.
        """
        arguments = pooling_arguments(files, settings, cpu=prepare_vllm())
        if step_tag is not None:
            from vllm.config.pooler import PoolerConfig

            arguments["pooler_config"] = PoolerConfig(tok_pooling_type="STEP", step_tag_id=step_tag)  # type: ignore[call-arg, unused-ignore]
        return cls(files.name, launch_engine(files.name, arguments))

    async def pool(self, inputs: Sequence[Sequence[int]], task: str) -> list[Any]:
        """The model's outputs before its activation: numbers `[labels]`, or rows `[steps, labels]`.

        Cancelling aborts what is running.

        Args:
            task: vLLM's pooling task: "token_classify" or "classify".

        Returns:
            NumPy arrays, fp32.

        Raises:
            BackendUnavailable: The engine has ended.
            BackendError: It failed.
        """
        tasks = [asyncio.ensure_future(self._pool(ids, task)) for ids in inputs]
        self._work.update(tasks)
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._work.difference_update(tasks)

    async def _pool(self, ids: Sequence[int], task: str) -> Any:
        from vllm import PoolingParams
        from vllm.inputs import TokensPrompt

        async with self._gate:
            if self._engine is None:
                raise BackendUnavailable(f"{self._name} is closed")
            # vLLM modifies the parameters: each request has its own
            params = PoolingParams(task=task, use_activation=False)  # type: ignore[arg-type, unused-ignore]
            request = self._engine.encode(
                TokensPrompt(prompt_token_ids=list(ids)), params, f"reason-{uuid.uuid4().hex}"
            )
            last: Any = None
            try:
                async with aclosing(request) as outputs:
                    async for output in outputs:
                        last = output
            except ValueError as e:  # vLLM's class for a request it rejects
                raise BackendError(f"vLLM rejected an input of {self._name}: {first_line(e)}") from e
            if last is None:
                raise BackendError(f"vLLM aborted an input of {self._name}")
            return last.outputs.data.float().cpu().numpy()

    async def aclose(self) -> None:
        """Cancel what is running and end the engine's processes; idempotent."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        work = tuple(self._work)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await stop_engine(engine)


def pooling_arguments(files: ModelFiles, settings: VllmSettings, *, cpu: bool) -> dict[str, Any]:
    """Arguments of `AsyncEngineArgs` for a pooling model, without the pooler's own.

    Prefix caching is off: rows of a cached prefix are not computed, so that the scores of its steps would be missing.

    Raises:
        UserError: `settings.engine` sets what scoring relies on.
    """
    if taken := sorted(set(settings.engine) & set(_RESERVED)):
        raise UserError(f"setting vllm.engine.{taken[0]} is reserved: reward models rely on it")
    context = read_config(files.directory).get("max_position_embeddings")
    arguments: dict[str, Any] = {
        "model": str(files.directory),
        "runner": "pooling",
        "dtype": settings.dtype,
        "enable_prefix_caching": False,
        "skip_tokenizer_init": True,
        "enable_log_requests": False,
    }
    arguments |= size_arguments(settings, context if isinstance(context, int) else None, cpu)
    return arguments | settings.engine
