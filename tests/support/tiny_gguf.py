"""A small random model as a GGUF file, for the tests of model files and of the commands that deal with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np


def _bytes_to_unicode() -> list[str]:
    """The printable stand-ins of the 256 bytes in byte-level BPE, by byte."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ t", "h e", "Ġt he", "i n", "Ġ a", "e r", "Ġ Ġ", "1 2", "12 3", "l l"]
PIECES = [*SPECIAL, *_bytes_to_unicode(), *(m.replace(" ", "") for m in MERGES)]
PIECES += [f"<|spare_{i}|>" for i in range(288 - len(PIECES))]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection in GGUF's llama order: row i and row i + d/2 of a head become neighbours."""
    head_dim = rows.shape[0] // heads
    order = [
        h * head_dim + half * (head_dim // 2) + i for h in range(heads) for i in range(head_dim // 2) for half in (0, 1)
    ]
    return rows[order]


@dataclass
class TinyModel:
    """A random model of one family and how to write it down as GGUF."""

    family: str = "llama"
    tied: bool = True
    hidden: int = 32
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 64
    head_dim: int | None = None
    rule: str = "smollm"
    theta: float = 100000.0
    fields: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def transformers_model(self) -> Any:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        more = {"sliding_window": 4, "query_pre_attn_scalar": self.head_dim} if self.family == "gemma3" else {}
        config = AutoConfig.for_model(
            "gemma3_text" if self.family == "gemma3" else self.family,
            vocab_size=len(PIECES),
            hidden_size=self.hidden,
            intermediate_size=self.ffn,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_dim or self.hidden // self.heads,
            max_position_embeddings=512,
            rms_norm_eps=1e-5,
            rope_theta=self.theta,
            tie_word_embeddings=self.tied,
            **more,
        )
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn_like(parameter) * 0.3
                parameter.copy_((parameter + noise).bfloat16().float())
        return model.eval()

    def write(self, path: Path, kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32) -> Path:
        """Write the GGUF file; `kind` is how matrices are stored."""
        writer = gguf.GGUFWriter(path, self.fields.get("general.architecture", self.family))
        writer.add_block_count(self.layers)
        writer.add_context_length(512)
        writer.add_embedding_length(self.hidden)
        writer.add_feed_forward_length(self.ffn)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_rope_freq_base(self.theta)
        writer.add_layer_norm_rms_eps(1e-5)
        if self.head_dim:
            writer.add_key_length(self.head_dim)
        if self.family == "gemma3":
            writer.add_sliding_window(4)
        tokenizer = {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": self.rule,
            "tokenizer.ggml.tokens": PIECES,
            "tokenizer.ggml.token_type": [3 if p.startswith("<|") else 1 for p in PIECES],
            "tokenizer.ggml.merges": MERGES,
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.chat_template": TEMPLATE,
        }
        for key, value in {**tokenizer, **self.fields}.items():
            if key in self.left_out or key == "general.architecture" or value is None:
                continue
            if isinstance(value, list):
                writer.add_array(key, value)
            elif isinstance(value, bool):
                writer.add_bool(key, value)
            elif isinstance(value, str):
                writer.add_string(key, value)
            elif isinstance(value, int):
                writer.add_uint32(key, value)
            else:
                writer.add_float32(key, value)
        for name, values in self._tensors().items():
            if name not in self.left_out:
                if values.ndim == 1 or kind == gguf.GGMLQuantizationType.F32:
                    writer.add_tensor(name, values)
                else:
                    writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def _tensors(self) -> dict[str, np.ndarray]:
        parts = {
            "input_layernorm": "attn_norm",
            "self_attn.q_proj": "attn_q",
            "self_attn.k_proj": "attn_k",
            "self_attn.v_proj": "attn_v",
            "self_attn.q_norm": "attn_q_norm",
            "self_attn.k_norm": "attn_k_norm",
            "self_attn.o_proj": "attn_output",
            "post_attention_layernorm": "ffn_norm",
            "pre_feedforward_layernorm": "ffn_norm",
            "post_feedforward_layernorm": "post_ffw_norm",
            "mlp.gate_proj": "ffn_gate",
            "mlp.up_proj": "ffn_up",
            "mlp.down_proj": "ffn_down",
        }
        if self.family == "gemma3":
            parts["post_attention_layernorm"] = "post_attention_norm"
        whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
        whole["lm_head.weight"] = "output.weight"
        tensors = {}
        for name, parameter in self.transformers_model().state_dict().items():
            values = parameter.numpy().copy()
            if self.family == "gemma3" and name.endswith("norm.weight"):
                values += 1
            if name in whole:
                if name != "lm_head.weight" or not self.tied:
                    tensors[whole[name]] = values
                continue
            _, _, layer, rest = name.split(".", 3)
            part, _, suffix = rest.rpartition(".")
            if self.family == "llama" and part.endswith(("q_proj", "k_proj")):
                values = interleave(values, self.heads if part.endswith("q_proj") else self.kv_heads)
            tensors[f"blk.{layer}.{parts[part]}.{suffix}"] = values
        return tensors
