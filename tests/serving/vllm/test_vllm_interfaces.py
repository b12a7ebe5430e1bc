"""What our code relies on in vLLM, checked against its sources: imports, calls, attributes, and overridden methods.

Nothing of vLLM is imported, so a version can be checked that cannot run here. The sources are those of the installed
vLLM, or those in the directory that `REASON_VLLM_SOURCE` names, which contains vLLM's own (`vllm/__init__.py`):

    pip download vllm==0.33.0 --no-deps -d wheels && unzip -q wheels/vllm-*.whl 'vllm/*.py' -d sources
    REASON_VLLM_SOURCE=sources pytest tests/serving/vllm/test_vllm_interfaces.py
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from reason.core.messages import SamplingParams
from reason.core.settings import VllmSettings
from reason.serving.vllm.generation import scoring_arguments
from reason.serving.vllm.options import engine_arguments, sampling_arguments
from support.source_tree import Definition, SourceTree, imports_of, is_abstract, signature_of

SOURCE = "REASON_VLLM_SOURCE"
ROOT = Path(__file__).parents[3]
OURS = ROOT / "serving" / "vllm"


@cache
def installed_or_named() -> tuple[Path | None, str]:
    """The directory with vLLM's, and why there is none."""
    if named := os.environ.get(SOURCE):
        assert (Path(named) / "vllm" / "__init__.py").is_file(), f"{SOURCE}={named} contains no vllm/__init__.py"
        return Path(named), ""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return None, f"vLLM is not installed, and {SOURCE} names no directory with its sources"
    return Path(spec.origin).parents[1], ""


@pytest.fixture(scope="module")
def tree() -> SourceTree:
    root, why_not = installed_or_named()
    if root is None:
        pytest.skip(why_not)
    return SourceTree(root)


# --- Imports


def importing_files() -> list[Path]:
    tests = ROOT / "tests"
    folders = [OURS, *(tests / "serving").glob("vllm*"), ROOT / "benchmarks"]
    return sorted(path for folder in folders for path in folder.glob("*.py") if imports_of(path, "vllm"))


@pytest.mark.parametrize("path", importing_files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_import_exists(tree, path):
    missing = [
        f"{module}:{name}"
        for module, name in sorted(imports_of(path, "vllm"))
        if not (tree.defines(module, name) if name else tree.module(module))
    ]
    assert missing == []


def test_the_names_in_strings_exist(tree):
    """What is named on command lines, by entry points and in the environment."""
    assert tree.module("vllm.entrypoints.openai.api_server") is not None
    groups = [g for g in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"] if "vllm" in g]
    assert len(groups) == 2
    for group in groups:
        sources = ("vllm.plugins", "vllm.v1.sample.logits_processor")
        assert any(f'"{group}"' in module.text for name in sources if (module := tree.module(name)) is not None), group
    variables = set(re.findall(r"\bVLLM_[A-Z0-9_]+", "".join(p.read_text() for p in OURS.glob("*.py"))))
    variables = {name for name in variables if not name.startswith(("VLLM_PREFIX",))}
    assert variables > {"VLLM_PLUGINS", "VLLM_NO_USAGE_STATS", "VLLM_LOGGING_STREAM"}
    envs = tree.module("vllm.envs")
    assert envs is not None
    assert [name for name in sorted(variables) if f'"{name}"' not in envs.text] == []


# --- Calls


CALLS: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("vllm.v1.engine.async_llm:AsyncLLM.from_engine_args", 1, ("stat_loggers",)),
    ("vllm.v1.engine.async_llm:AsyncLLM.generate", 3, ()),
    ("vllm.v1.engine.async_llm:AsyncLLM.encode", 3, ()),
    ("vllm.v1.engine.async_llm:AsyncLLM.collective_rpc", 1, ("args",)),
    ("vllm.v1.engine.async_llm:AsyncLLM.shutdown", 0, ()),
    ("vllm.engine.protocol:StreamingInput", 2, ()),
    ("vllm.config.pooler:PoolerConfig", 0, ("tok_pooling_type", "step_tag_id")),
    ("vllm:PoolingParams", 0, ("task", "use_activation")),
    ("vllm.v1.attention.backends.registry:register_backend", 2, ()),
    ("vllm.v1.sample.logits_processor.builtin:process_dict_updates", 3, ()),
    ("vllm.v1.engine:EngineCoreOutput", 2, ("finish_reason", "stop_reason")),
    ("vllm.v1.engine:EngineCoreOutputs", 0, ("outputs",)),
    ("vllm.utils.import_utils:resolve_obj_by_qualname", 1, ()),
    ("vllm.config.model:ModelConfig.get_vocab_size", 0, ()),
    ("vllm.config.model:ModelConfig.get_num_attention_heads", 1, ()),
)
"""Functions, methods and classes; arguments that are given by position, and by name."""


@pytest.mark.parametrize(("reference", "num_positional", "keywords"), CALLS, ids=[c[0] for c in CALLS])
def test_every_call_is_accepted(tree, reference, num_positional, keywords):
    signature = tree.signature(reference)
    assert signature is not None, "it does not exist"
    assert signature.refusal(num_positional, keywords) == ""


def test_every_argument_of_the_engine_exists(tree):
    directory = Path("/models/x")
    names = {"kv_transfer_config", "pooler_config"}
    for cpu in (True, False):
        for settings in (VllmSettings(), VllmSettings(engine={"kv_cache_memory_bytes": 1 << 30})):
            names |= engine_arguments(directory, settings, None, cpu).keys()
    names |= {"scheduler_cls", "async_scheduling", "attention_config", "attention_backend", "kv_cache_dtype"}
    names |= {"speculative_config", "data_parallel_size", "decode_context_parallel_size", "runner"}
    assert names - tree.attributes("vllm.engine.arg_utils:AsyncEngineArgs") == set()


def test_every_sampling_parameter_exists(tree):
    names = sampling_arguments(SamplingParams(), 0, ()).keys() | scoring_arguments(True).keys()
    names |= {"extra_args", "output_kind", "all_stop_token_ids"}
    assert names - tree.attributes("vllm.sampling_params:SamplingParams") == set()
    assert {"DELTA", "FINAL_ONLY"} <= tree.attributes("vllm.sampling_params:RequestOutputKind")


def test_every_documented_flag_of_the_server_exists(tree):
    pages = [ROOT / "docs" / name for name in ("vllm.md", "vllm-server.md")]
    commands = re.findall(r"```bash\n(.*?)```", "".join(p.read_text() for p in pages), re.DOTALL)
    server = [text for text in commands if "api_server" in text or "--enforce-eager" in text]
    flags = {flag for text in server for flag in re.findall(r"(?<![\w-])--([a-z][a-z-]+)", text)}
    assert flags > {"worker-extension-cls", "no-enable-chunked-prefill", "api-key"}
    modules = [tree.module("vllm.engine.arg_utils")]
    modules += [_at(tree, path) for path in (tree.root / "vllm" / "entrypoints").rglob("*cli_args.py")]
    text = "".join(module.text for module in modules if module is not None)
    missing = [
        flag for flag in sorted(flags) if not re.search(rf"\b{flag.removeprefix('no-').replace('-', '[-_]')}\b", text)
    ]
    assert missing == []


def _at(tree: SourceTree, path: Path) -> Any:
    return tree.module(".".join(path.relative_to(tree.root).with_suffix("").parts))


# --- Attributes


ATTRIBUTES: dict[str, str] = {
    "vllm.v1.engine.async_llm:AsyncLLM": "engine_core model_config vllm_config output_handler",
    "vllm.v1.engine.core_client:MPClient": "resources",
    "vllm.v1.engine.core_client:BackgroundResources": "engine_manager",
    "vllm.v1.engine.utils:CoreEngineProcManager": "processes",
    "vllm.config:VllmConfig": "model_config cache_config scheduler_config parallel_config "
    "kv_transfer_config compilation_config",
    "vllm.config:ModelConfig": "dtype max_model_len model served_model_name hf_text_config logits_processors",
    "vllm.config:CacheConfig": "block_size enable_prefix_caching",
    "vllm.config:SchedulerConfig": "max_num_seqs scheduler_cls async_scheduling",
    "vllm.config:ParallelConfig": "rank world_size data_parallel_size pipeline_parallel_size "
    "enable_batch_sharded_sampling",
    "vllm.config:CompilationConfig": "static_forward_context",
    "vllm.config:KVTransferConfig": "kv_load_failure_policy",
    "vllm.inputs:TokensPrompt": "prompt_token_ids cache_salt",
    "vllm.outputs:RequestOutput": "outputs num_cached_tokens metrics prompt_logprobs kv_transfer_params",
    "vllm.outputs:CompletionOutput": "token_ids logprobs finish_reason stop_reason",
    "vllm.outputs:PoolingRequestOutput": "outputs",
    "vllm.outputs:PoolingOutput": "data",
    "vllm.logprobs:Logprob": "logprob rank",
    "vllm.v1.metrics.stats:RequestStateStats": "scheduled_ts queued_ts",
    "vllm.v1.metrics.stats:SchedulerStats": "prefix_cache_stats",
    "vllm.v1.metrics.stats:PrefixCacheStats": "queries hits",
    "vllm.v1.request:Request": "request_id prompt_token_ids sampling_params kv_transfer_params status client_index "
    "resumable",
    "vllm.v1.request:RequestStatus": "FINISHED_STOPPED FINISHED_LENGTH_CAPPED FINISHED_ABORTED",
    "vllm.v1.core.block_pool:BlockPool": "blocks num_gpu_blocks enable_caching",
    "vllm.v1.core.kv_cache_utils:KVCacheBlock": "block_id block_hash is_null",
    "vllm.v1.core.kv_cache_manager:KVCacheManager": "block_pool",
    "vllm.v1.core.sched.output:SchedulerOutput": "num_scheduled_tokens scheduled_new_reqs scheduled_cached_reqs",
    "vllm.v1.core.sched.output:NewRequestData": "req_id num_computed_tokens",
    "vllm.v1.core.sched.output:CachedRequestData": "req_ids num_computed_tokens",
    "vllm.v1.core.sched.scheduler:Scheduler": "running requests pause_state",
    "vllm.v1.core.sched.interface:PauseState": "UNPAUSED",
    "vllm.v1.engine:EngineCoreOutputs": "outputs",
    "vllm.v1.engine:FinishReason": "ABORT",
    "vllm.v1.kv_cache_interface:KVCacheConfig": "num_blocks kv_cache_groups",
    "vllm.v1.kv_cache_interface:KVCacheGroupSpec": "kv_cache_spec",
    "vllm.v1.kv_cache_interface:FullAttentionSpec": "block_size num_kv_heads sliding_window attention_chunk_size",
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner": "input_batch",
    "vllm.v1.worker.gpu_input_batch:InputBatch": "logitsprocs",
    "vllm.v1.sample.logits_processor:LogitsProcessors": "all",
    "vllm.v1.worker.gpu.model_runner:GPUModelRunner": "sampler",
    "vllm.v1.worker.gpu.sample.sampler:Sampler": "logits_processors",
    "vllm.v1.worker.gpu.sample.logits_processor:LogitsContext": "idx_mapping_np expanded_idx_mapping pos",
    "vllm.v1.worker.gpu.sample.logits_processor:LogitsProcRequestState": "prompt_len all_token_ids",
    "vllm.v1.worker.gpu.buffer_utils:UvaBackedTensor": "np",
    "vllm.v1.worker.gpu.buffer_utils:StagedWriteTensor": "gpu",
    "vllm.v1.worker.worker_base:WorkerBase": "model_runner",
    "vllm.v1.attention.backends.registry:AttentionBackendEnum": "CPU_ATTN FLASH_ATTN",
    "vllm.v1.attention.backend:AttentionCGSupport": "NEVER",
    "vllm.v1.attention.backend:CommonAttentionMetadata": "query_start_loc query_start_loc_cpu seq_lens num_reqs",
    "vllm.model_executor.layers.attention:Attention": "layer_name attn_backend",
}
"""Attributes that are read, by class."""


@pytest.mark.parametrize("reference", ATTRIBUTES)
def test_every_attribute_exists(tree, reference):
    assert tree.find(reference) is not None, "it does not exist"
    assert set(ATTRIBUTES[reference].split()) - tree.attributes(reference) == set()


# --- Overridden methods


LIKE = {
    "CacheStatsLogger": "vllm.v1.metrics.loggers:StatLoggerBase",
    "ReasonEndpoint": "vllm.plugins.endpoint_plugins.interface:EndpointPlugin",
}
"""Classes that vLLM uses as if they were derived from one of its own."""

NEW = {
    "ReasonLogitsProcessor": {"take_reports"},
    "ReasonEndpoint": {"take_reports", "list_logits_processors"},
    "CacheStatsLogger": {"__call__"},
    # removed from vLLM 0.32 with cascade attention; 0.31 has it
    "SharedCpuBuilder": {"use_cascade_attention"},
    "SharedFlashBuilder": {"use_cascade_attention"},
}
"""Public methods of ours that override none of vLLM's."""


@cache
def our_classes() -> dict[str, tuple[ast.ClassDef, dict[str, tuple[str, str]]]]:
    """Classes of the package, each with the names that its module imports of vLLM."""
    found = {}
    for path in sorted(OURS.glob("*.py")):
        imported = {}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level:
                imported |= {a.asname or a.name: (node.module or "", a.name) for a in node.names}
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = node, imported
    return found


def own_classes(name: str) -> Iterator[str]:
    """A class of ours and its bases among them."""
    if name in our_classes():
        yield name
        for base in our_classes()[name][0].bases:
            yield from own_classes(ast.unparse(base))


def bases_in_vllm(name: str) -> list[str]:
    """What a class of ours is derived from in vLLM, or used like."""
    found = [LIKE[one] for one in own_classes(name) if one in LIKE]
    for one in own_classes(name):
        definition, imported = our_classes()[one]
        bases = [imported[b] for b in map(ast.unparse, definition.bases) if b in imported]
        found += [f"{module}:{base}" for module, base in bases if module.startswith("vllm")]
    return found


def derived_classes() -> list[str]:
    """Classes whose instances vLLM uses, most derived ones only."""
    bases = {base for name in our_classes() for base in list(own_classes(name))[1:]}
    return [name for name in our_classes() if bases_in_vllm(name) and (name not in bases or name in LIKE)]


def methods(definition: ast.ClassDef) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    return {n.name: n for n in definition.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_all_classes_for_vllm_are_known():
    assert set(derived_classes()) == {
        *("ReasonLogitsProcessor", "RowTracker", "SharedCacheScheduler"),
        *("SharedCpuBackend", "SharedCpuBuilder", "SharedCpuAttention"),
        *("SharedFlashBackend", "SharedFlashBuilder", "SharedFlashAttention", "ReasonEndpoint", "CacheStatsLogger"),
    }


@pytest.mark.parametrize("name", derived_classes())
def test_every_override_overrides(tree, name):
    """Each public method of ours is one of vLLM's, takes what vLLM's takes, and none that vLLM requires is missing."""
    theirs = {}
    for reference in bases_in_vllm(name):
        found = tree.find(reference)
        assert found is not None, f"{reference} does not exist"
        assert isinstance(found[1], ast.ClassDef)
        for _, method, definition in tree.members(found[0], found[1]):
            if not isinstance(definition, ast.ClassDef):
                theirs.setdefault(method, []).append(definition)
    ours = {}
    for one in reversed([*own_classes(name)]):
        ours |= methods(our_classes()[one][0])
    new = set().union(*(NEW.get(one, set()) for one in (name, *own_classes(name))))
    unknown = {method for method in ours if not method.startswith("_")} - theirs.keys() - new
    assert unknown == set(), "vLLM does not call them"
    for method, definition in ours.items():
        # constructors differ by design: each runner has its own
        for overridden in theirs.get(method, []) if method != "__init__" else []:
            assert _takes(definition, overridden), f"{method}({ast.unparse(overridden.args)})"
    required = {method for method, definitions in theirs.items() if is_abstract(definitions[0])}
    assert required - ours.keys() - {"__init__"} == set(), "vLLM requires them"


def _takes(ours: Definition, theirs: Definition) -> bool:
    """Whether a method accepts every call of another one by position, and its keywords by name."""
    assert not isinstance(ours, ast.ClassDef)
    assert not isinstance(theirs, ast.ClassDef)
    mine, other = (signature_of(one, is_method=True) for one in (ours, theirs))
    if isinstance(ours, ast.AsyncFunctionDef) != isinstance(theirs, ast.AsyncFunctionDef):
        return False
    counts = range(other.num_required, len(other.positional) + 1)
    return not any(mine.refusal(count, tuple(other.keyword_only)) for count in counts)
