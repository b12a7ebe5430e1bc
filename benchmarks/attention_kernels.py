"""Attention by matrix products next to torch's fused kernel, on this processor, in bf16.

    python benchmarks/attention_kernels.py [--threads N]

The shapes are those of SmolLM2-135M: 3 key heads with 3 query heads each, of 64 numbers. Printed are milliseconds of
a layer, the best of several runs that take turns, and the mean error against double precision.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from reason.serving.local.attention import attention_by_products
from torch import Tensor

HEADS, GROUP, DIM = 3, 3, 64
SHAPES = {
    "one sequence, 160 slots": (1, 160),
    "one sequence, 1,024 slots": (1, 1024),
    "one sequence, 4,096 slots": (1, 4096),
    "64 sequences, 160 slots": (64, 160),
    "prefill of 512, 512 slots": (512, 512),
    "prefill of 512, 1,024 slots": (512, 1024),
    "prefill of 512, 4,096 slots": (512, 4096),
}


def fused(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Torch's kernel."""
    return torch.nn.functional.scaled_dot_product_attention(
        query[None], keys[None], values[None], attn_mask=mask[None, None], scale=scale
    )[0]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    kernels: dict[str, Callable[..., Tensor]] = {"fused": fused, "products": lambda *a: attention_by_products(*a)[0]}
    print("| | fused, ms | products, ms | ratio | error, fused | error, products |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    generator = torch.Generator().manual_seed(0)
    for title, (sequences, slots) in SHAPES.items():
        rows = sequences * GROUP
        query = torch.randn(HEADS, rows, DIM, generator=generator).bfloat16()
        keys, values = (torch.randn(HEADS, slots, DIM, generator=generator).bfloat16() for _ in "kv")
        mask = torch.zeros(rows, slots).bfloat16()
        if sequences == 512:
            hidden = torch.full((512, slots), float("-inf")).triu(slots - 511)
            mask = hidden.repeat_interleave(GROUP, 0).bfloat16()
        scale = DIM**-0.5
        exact = (query.double() @ keys.double().mT * scale + mask.double()).softmax(-1) @ values.double()
        times: dict[str, list[float]] = {name: [] for name in kernels}
        errors = {}
        for _ in range(12):
            for name, kernel in kernels.items():
                started = time.perf_counter()
                out = kernel(query, keys, values, mask, scale)
                times[name].append(time.perf_counter() - started)
                errors[name] = (out.double() - exact).abs().mean().item()
        one, other = (min(times[name]) * 1e3 for name in kernels)
        error = " | ".join(f"{errors[name]:.1e}" for name in kernels)
        print(f"| {title} | {one:.3f} | {other:.3f} | {one / other:.2f} | {error} |")


if __name__ == "__main__":
    main()
