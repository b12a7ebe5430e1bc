"""GGUF files of a Hugging Face checkpoint for llama.cpp: f16, q8_0 and q4_0, without a vocabulary.

    python benchmarks/llama_gguf.py MODEL_DIRECTORY TARGET_DIRECTORY

For measuring on token ids only. Llama and Qwen2 checkpoints. Needs the packages gguf and llama-cpp-python.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FORMATS = ("f16", "q8_0", "q4_0")
ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2"}


def gguf_files(directory: Path, target: Path) -> dict[str, Path]:
    """The file of each format, made where it is missing."""
    target.mkdir(parents=True, exist_ok=True)
    files = {name: target / f"{name}.gguf" for name in FORMATS}
    if not files["f16"].exists():
        write_f16(directory, files["f16"])
    for name in FORMATS[1:]:
        if not files[name].exists():
            quantize(files["f16"], files[name], name)
    return files


def write_f16(directory: Path, target: Path) -> None:
    """Convert a checkpoint; vectors stay in single precision, as llama.cpp's own converter has them."""
    import gguf
    import numpy as np
    from safetensors import safe_open

    config = json.loads((directory / "config.json").read_text())
    architecture = ARCHITECTURES[config["model_type"]]
    num_heads, num_kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    rope = config.get("rope_parameters") or config
    partial = target.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, architecture)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(num_heads)
    writer.add_head_count_kv(num_kv_heads)
    writer.add_rope_dimension_count(config["hidden_size"] // num_heads)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    names = gguf.get_tensor_name_map(
        {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[architecture], config["num_hidden_layers"]
    )
    for path in sorted(directory.glob("model*.safetensors")):
        with safe_open(str(path), framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - a safetensors file is no mapping
                if name == "lm_head.weight" and config.get("tie_word_embeddings"):
                    continue
                tensor: Any = tensors.get_tensor(name).float()
                if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
                    tensor = interleave_pairs(tensor, num_heads if ".q_proj" in name else num_kv_heads)
                values = tensor.numpy().astype(np.float16 if tensor.dim() > 1 else np.float32)
                writer.add_tensor(names.get_name(name, (".weight", ".bias")), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(target)


def interleave_pairs(weight: Any, num_heads: int) -> Any:
    """Rows of a projection so that the two numbers that RoPE rotates are neighbours: llama.cpp's order for Llama."""
    outputs, inputs = weight.shape
    halves = weight.reshape(num_heads, 2, outputs // num_heads // 2, inputs)
    return halves.swapaxes(1, 2).reshape(outputs, inputs)


def quantize(source: Path, target: Path, name: str) -> None:
    """Quantize with llama.cpp's own rules for the format."""
    from llama_cpp import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = {"q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}[name]
    partial = target.with_suffix(".partial")
    if llama_cpp.llama_model_quantize(str(source).encode(), str(partial).encode(), params):
        raise SystemExit(f"llama.cpp cannot quantize {source} to {name}")
    partial.rename(target)


if __name__ == "__main__":
    for written in gguf_files(Path(sys.argv[1]), Path(sys.argv[2])).values():
        print(written, written.stat().st_size >> 20, "MiB")
