"""`PrefixConnector`: saved prefixes on vLLM's own interface for keys and values, `KVConnectorBase_V1`.

Loaded by its path, so that an engine in this program and `vllm serve` can both have it:

    --kv-transfer-config '{"kv_connector": "PrefixConnector",
                           "kv_connector_module_path": "reason.serving.vllm.kv_connector",
                           "kv_role": "kv_both", "kv_load_failure_policy": "recompute",
                           "kv_connector_extra_config": {"root": "/var/lib/prefixes"}}'

vLLM creates one for its scheduler and one for each worker. Idle, it does a dictionary lookup for each request and step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ...core.settings import load_settings
from ..model_files.checkpoint import directory_fingerprint
from ..model_files.downloads import PullTask
from ..prefix_directory import PrefixDirectory, PrefixOwner, PrefixStorage
from .installation import require_vllm, vllm_imports
from .kv_transfer import (
    BlockLayout,
    BlockRead,
    BlockStorage,
    BlockWrite,
    ConnectorScheduler,
    TransferReport,
    combined_layout,
)

with vllm_imports():
    from vllm.distributed.kv_transfer.kv_connector.v1.base import (
        KVConnectorBase_V1,
        KVConnectorHandshakeMetadata,
        KVConnectorMetadata,
        KVConnectorRole,
        KVConnectorWorkerMetadata,
        SupportsHMA,
    )
    from vllm.v1.kv_cache_interface import FullAttentionSpec
    from vllm.v1.request import RequestStatus

COMPLETED = (RequestStatus.FINISHED_STOPPED, RequestStatus.FINISHED_LENGTH_CAPPED)
DEFAULT_LIMIT = 4 << 30


@dataclass
class StepTransfers(KVConnectorMetadata):  # type: ignore[misc]
    """What the workers do in a step."""

    reads: list[BlockRead] = field(default_factory=list)
    writes: list[BlockWrite] = field(default_factory=list)


@dataclass
class WorkersReport(KVConnectorWorkerMetadata):  # type: ignore[misc]
    """What the workers did in a step."""

    report: TransferReport

    def aggregate(self, other: WorkersReport) -> WorkersReport:
        """Both together."""
        self.report.merge(other.report)
        return self


@dataclass
class LayoutHandshake(KVConnectorHandshakeMetadata):  # type: ignore[misc]
    """How a worker stores a block, reported to the scheduler at the start."""

    layout: BlockLayout


class PrefixConnector(KVConnectorBase_V1, SupportsHMA):  # type: ignore[misc]
    """See the module.

    Further configuration (`kv_connector_extra_config`):
        root: Directory of the prefixes; required.
        limit: Maximum bytes of all; 4 GiB by default.
        identity: Name of the weights, which changes when they do; by default the fingerprint of the model's directory.
            Empty if no request may name a prefix, which is how a program uses it that keeps the names itself.
    """

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        require_vllm()
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        transfer = vllm_config.kv_transfer_config
        if transfer.kv_load_failure_policy != "recompute":
            raise ValueError('PrefixConnector needs "kv_load_failure_policy": "recompute": a damaged file is a miss')
        self._config, self._num_blocks = vllm_config, kv_cache_config.num_blocks
        self._block_tokens = vllm_config.cache_config.block_size
        self._storage: BlockStorage | None = None
        self._caches: Mapping[str, Tensor] = {}
        self._scheduler: ConnectorScheduler | None = None
        self._refusal = _refusal(vllm_config, kv_cache_config)
        if role == KVConnectorRole.SCHEDULER:
            root = transfer.get_from_extra_config("root", None)
            if not root:
                raise ValueError('PrefixConnector needs "root" in kv_connector_extra_config: the directory of prefixes')
            limit = int(transfer.get_from_extra_config("limit", DEFAULT_LIMIT))
            storage = PrefixStorage(Path(root).absolute(), limit)
            identity = transfer.get_from_extra_config("identity", None)
            identity = _identity(vllm_config) if identity is None else identity
            model = vllm_config.model_config
            name = str(model.served_model_name or Path(model.model).name)

            def open_directory(layout: BlockLayout) -> PrefixDirectory:
                return PrefixDirectory(storage, PrefixOwner(name, identity, layout.dtype, layout.layout))

            self._scheduler = ConnectorScheduler(storage.root, self._block_tokens, open_directory if identity else None)
            if self._refusal:
                self._scheduler.refuse(self._refusal)

    # --- In the scheduler's process

    def set_xfer_handshake_metadata_pp_aware(self, metadata: dict[tuple[int, int], LayoutHandshake]) -> None:
        if self._scheduler is not None:
            layouts = [metadata[k].layout for k in sorted(metadata)]
            self._scheduler.set_layout(combined_layout(layouts), len(metadata))

    def bind_kv_cache_manager(self, kv_cache_manager: Any) -> None:
        super().bind_kv_cache_manager(kv_cache_manager)
        if self._scheduler is not None:
            self._scheduler.bind(kv_cache_manager, self._config.model_config.max_model_len)

    def on_new_request(self, request: Any) -> None:
        if self._scheduler is not None:
            self._scheduler.add_request(request)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        """Tokens in files beyond those that are computed; they are read within the step."""
        if self._scheduler is None:
            return 0, False
        return self._scheduler.num_matched_tokens(request, num_computed_tokens), False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        if self._scheduler is not None:
            self._scheduler.blocks_allocated(request, lambda: blocks.get_block_ids()[0], num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> StepTransfers:
        return (
            StepTransfers() if self._scheduler is None else StepTransfers(*self._scheduler.schedule(scheduler_output))
        )

    def update_connector_output(self, connector_output: Any) -> None:
        metadata = connector_output.kv_connector_worker_meta
        if self._scheduler is not None and isinstance(metadata, WorkersReport):
            self._scheduler.add_report(metadata.report)

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        """A request has ended; its blocks need not wait."""
        if self._scheduler is None:
            return False, None
        blocks: Sequence[int] = block_ids[0] if len(block_ids) == 1 else ()
        return False, self._scheduler.finish_request(request, blocks, request.status in COMPLETED)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        return self.request_finished_all_groups(request, (block_ids,))

    def shutdown(self) -> None:
        if self._scheduler is not None:
            self._scheduler.close()

    # --- In a worker

    def register_kv_caches(self, kv_caches: dict[str, Tensor]) -> None:
        self._caches = kv_caches

    def get_handshake_metadata(self) -> LayoutHandshake:
        return LayoutHandshake(self.layout)

    @property
    def layout(self) -> BlockLayout:
        """How this worker stores blocks."""
        return BlockLayout(refusal=self._refusal) if self._refusal else self._block_storage().layout

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        for read in self._transfers().reads:
            self._block_storage().read(read)

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Nothing to wait for: all layers are read before the first."""

    def save_kv_layer(self, layer_name: str, kv_layer: Tensor, attn_metadata: Any, **kwargs: Any) -> None:
        """Nothing to do: blocks are written when the step is over."""

    def wait_for_save(self) -> None:
        for write in self._transfers().writes:
            self._block_storage().write(write)

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Blocks that the engine must compute after all."""
        return set() if self._storage is None else self._storage.take_failed_blocks()

    def build_connector_worker_meta(self) -> WorkersReport | None:
        """The step's report."""
        report = None if self._storage is None else self._storage.take_report()
        return None if report is None else WorkersReport(report)

    def _transfers(self) -> StepTransfers:
        transfers = self._connector_metadata
        return transfers if isinstance(transfers, StepTransfers) else StepTransfers()

    def _block_storage(self) -> BlockStorage:
        if self._storage is None:
            parallel = self._config.parallel_config
            self._storage = BlockStorage(
                self._caches,
                self._num_blocks,
                self._block_tokens,
                _attention(self._config, self._caches),
                parallel.rank,
                parallel.world_size,
            )
        return self._storage


def _refusal(vllm_config: Any, kv_cache_config: Any) -> str:
    """Why a model's prefixes cannot be saved; empty if they can."""
    groups = kv_cache_config.kv_cache_groups
    specs = [g.kv_cache_spec for g in groups]
    if len(specs) != 1 or not isinstance(specs[0], FullAttentionSpec):
        return "the model does not keep the keys and values of all tokens in all layers alike"
    if specs[0].block_size != vllm_config.cache_config.block_size:
        return "its layers keep blocks of another size than the cache"
    if getattr(specs[0], "sliding_window", None) or getattr(specs[0], "attention_chunk_size", None):
        return "the model drops keys and values outside a window"
    if vllm_config.parallel_config.data_parallel_size > 1:
        return "there are several engines, each of which holds its own prefixes"
    return ""


def _attention(vllm_config: Any, caches: Mapping[str, Tensor]) -> str:
    """Device, attention and its variant, which decide the arrangement inside a block."""
    layers = vllm_config.compilation_config.static_forward_context
    name, cache = next(iter(caches.items()))
    layer = layers.get(name)
    backend = getattr(layer, "attn_backend", None)
    parts = (cache.device.type, "" if backend is None else backend.get_name(), getattr(layer, "isa", ""))
    return " ".join(p for p in parts if p)


def _identity(vllm_config: Any) -> str:
    """The fingerprint of the model's directory, its number format and vLLM's version, as `VllmModel.identity`.

    Raises:
        ValueError: The model is no directory, so that a change of its weights cannot be detected.
    """
    model = vllm_config.model_config
    directory = Path(model.model)
    if not directory.is_dir():
        raise ValueError(
            'PrefixConnector needs "identity" in kv_connector_extra_config where the model is no directory: a name '
            "that changes when the weights do, for example the hub id with its revision"
        )
    fingerprint = directory_fingerprint(directory, load_settings().cache_dir, PullTask())
    return f"{fingerprint}+{str(model.dtype).removeprefix('torch.')}+vllm-{require_vllm()}"
