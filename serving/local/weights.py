"""Weights: reading a checkpoint, and matrices in one of three formats with the elementwise step that follows them.

A format is chosen once, at load: results must not depend on how many rows share a step. Which kernel oneDNN uses for a
number of rows depends on its version, the processor, the shape and the threads, so it is measured (`PackedLinear`): a
single row is computed twice where it would have other bits than beside a second one. On processors with AMX, products
of up to `MAX_INVARIANT_ROWS` rows are computed in batches of as many as keep their bits, and larger ones as is fastest;
on others a row keeps its bits beside any number of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ...core.errors import CapabilityMissing, DataError
from .config import read_json

WeightFormat = Literal["fp32", "bf16", "int4"]
MAX_INVARIANT_ROWS = 128
"""With AMX, rows of a product up to which each has the same bits in any batch."""
INT4_GROUP = 32
"""Weights that share a scale in the int4 format: as many as in GGUF's 4-bit blocks, so that weights from such
a file fall on the same sixteen levels again."""


class Linear(Protocol):
    """A matrix `[outputs, inputs]` applied to rows `[rows, inputs]`, with the elementwise step that follows it.

    Attributes:
        weight: The matrix in the layout of its product.
    """

    weight: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """The product, plus the bias if there is one."""

    def silu(self, x: Tensor) -> Tensor:
        """`silu(product)`."""

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """`product + other`."""

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """`product * other`."""


class PlainLinear:
    """torch's own product: where oneDNN's prepacked one is missing."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight, self._bias = weight.contiguous(), bias

    def __call__(self, x: Tensor) -> Tensor:
        """The product."""
        return functional.linear(x, self.weight, self._bias)

    def silu(self, x: Tensor) -> Tensor:
        """`silu(product)`."""
        return functional.silu(self(x))

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """`product + other`."""
        return self(x).add_(other)

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """`product * other`."""
        return self(x).mul_(other)


class _InvarianceLimits(NamedTuple):
    """In which batches a row of a product has the same bits."""

    doubles_single: bool
    """Whether a row alone has other bits than beside a second one: it is computed twice then."""
    batch_rows: int
    """Rows up to which each has the bits that it has beside a second one."""


_TRIED_ROWS = {16: (2, 9, 15), 32: (17, 24, 31, 32), MAX_INVARIANT_ROWS: (33, 48, 65, 80, 100, 127, MAX_INVARIANT_ROWS)}
"""Sizes of a batch on processors with AMX, and the numbers of rows that must have the same bits for each."""
_LIMITS: dict[tuple[object, ...], dict[tuple[int, int], _InvarianceLimits]] = {}
"""For each shape, format and layout: the limits by number of threads and most rows."""


class PackedLinear:
    """oneDNN's prepacked product with the elementwise step fused.

    About twice as fast as the plain bf16 product at one row, and four rows cost about as much as one.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._bias = bias
        self._op: Any = torch.ops.mkldnn._linear_pointwise.default
        self._binary: Any = torch.ops.mkldnn._linear_pointwise.binary
        self._shape, self._has_tiles = weight.shape, weight.dtype is torch.bfloat16 and has_amx()
        self._pack(weight, 16 if weight.dtype is torch.float32 else 1)  # in fp32, 16 gains much with several rows
        if self._has_tiles and self._limits(2).batch_rows < 32:
            self._pack(weight, 16)

    def _pack(self, weight: Tensor, layout: int) -> None:
        """Pack into the blocked layout that oneDNN chooses for a number of rows."""
        pack: Any = torch.ops.mkldnn._reorder_linear_weight
        self.weight: Tensor = pack(weight.contiguous(), layout)
        self._known = _LIMITS.setdefault((self._shape, weight.dtype, layout), {})

    def __call__(self, x: Tensor) -> Tensor:
        """The product."""
        return self._unary(x, "none")

    def silu(self, x: Tensor) -> Tensor:
        """`silu(product)`."""
        return self._unary(x, "swish")

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """`product + other`."""
        return self._pair(x, other, "add")

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """`product * other`."""
        return self._pair(x, other, "mul")

    def _unary(self, x: Tensor, step: str) -> Tensor:
        return self._batch_invariant(lambda rows: self._op(rows, self.weight, self._bias, step, [], ""), x)

    def _pair(self, x: Tensor, other: Tensor, step: str) -> Tensor:
        return self._batch_invariant(
            lambda rows, more: self._binary(rows, more, self.weight, self._bias, step), x, other
        )

    def _batch_invariant(self, product: Callable[..., Tensor], *operands: Tensor) -> Tensor:
        """A product that gives each row the same bits in any batch; with AMX, in any of up to `MAX_INVARIANT_ROWS`."""
        rows = operands[0].shape[0]
        if rows > MAX_INVARIANT_ROWS:
            return product(*operands)
        limits = self._limits(rows)
        if rows == 1 and limits.doubles_single:
            return product(*(torch.cat([x, x]) for x in operands))[:1]
        if rows <= limits.batch_rows:
            return product(*operands)
        splits = zip(*(torch.split(x, limits.batch_rows) for x in operands), strict=True)
        return torch.cat([self._batch_invariant(product, *part) for part in splits])

    def _limits(self, rows: int) -> _InvarianceLimits:
        """The limits for so many rows, measured once for each shape, format, layout and number of threads."""
        most = 32 if rows <= 32 or not self._has_tiles else MAX_INVARIANT_ROWS  # what many rows need, when they occur
        key = (torch.get_num_threads(), most)
        return self._known.get(key) or self._known.setdefault(key, self._measure_limits(most))

    def _measure_limits(self, most: int) -> _InvarianceLimits:
        x = torch.randn(most, self._shape[1], generator=torch.Generator().manual_seed(0)).to(self.weight.dtype)
        other = torch.zeros(most, self._shape[0], dtype=x.dtype)

        def sums(rows: int, start: int = 0) -> Tensor:
            part = slice(start, start + rows)
            result: Tensor = self._binary(x[part], other[part], self.weight, self._bias, "add")
            return result

        if x.dtype is torch.bfloat16:
            # Sums of other orders round to the same bf16 mostly. What was rounded off, in fp32 until then, shows them.
            other = torch.cat([-sums(16, i) for i in range(0, most, 16)])
        doubles_single = not torch.equal(sums(1), sums(2)[:1])
        if not self._has_tiles:
            return _InvarianceLimits(doubles_single, MAX_INVARIANT_ROWS)
        expected = torch.cat([sums(16, i) for i in range(0, most, 16)])
        batch_rows = 2
        for size, tried in _TRIED_ROWS.items():
            if size > most or not all(torch.equal(sums(rows), expected[:rows]) for rows in tried):
                break
            batch_rows = size
        return _InvarianceLimits(doubles_single, batch_rows)


class Int4Linear:
    """Weights rounded to 4 bits, a scale and a zero for each group of 32 inputs; activations stay bf16.

    Plain rounding to the nearest level changes the output of small models, so this format is never chosen silently.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        outputs, inputs = weight.shape
        grouped = weight.float().view(outputs, inputs // INT4_GROUP, INT4_GROUP)
        high, low = grouped.amax(-1), grouped.amin(-1)
        scale = ((high - low) / 15).clamp_min(1e-8)
        levels = ((grouped - low[..., None]) / scale[..., None]).round().clamp(0, 15).to(torch.int32)
        pack: Any = torch.ops.aten._convert_weight_to_int4pack_for_cpu
        self.weight: Tensor = pack(levels.view(outputs, inputs), 1)
        # The kernel computes (level - 8) * scale + zero.
        self._scales = torch.stack([scale.t(), (low + 8 * scale).t()], -1).to(torch.bfloat16).contiguous()
        self._bias = bias
        self._op: Any = torch.ops.aten._weight_int4pack_mm_for_cpu

    @staticmethod
    def fits(weight: Tensor) -> bool:
        """Whether the kernel supports a matrix of this shape."""
        return weight.shape[1] % INT4_GROUP == 0 and weight.shape[0] % 16 == 0

    def __call__(self, x: Tensor) -> Tensor:
        """The product."""
        result: Tensor = self._op(x.contiguous(), self.weight, INT4_GROUP, self._scales)
        return result if self._bias is None else result.add_(self._bias)

    def silu(self, x: Tensor) -> Tensor:
        """`silu(product)`."""
        return functional.silu(self(x), inplace=True)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """`product + other`."""
        return self(x).add_(other)

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """`product * other`."""
        return self(x).mul_(other)


def can_prepack(dtype: torch.dtype) -> bool:
    """Whether torch has oneDNN's prepacked product for the number format."""
    operators = torch.ops.mkldnn
    if not torch._C._has_mkldnn or not hasattr(operators, "_linear_pointwise"):
        return False
    try:
        PackedLinear(torch.zeros(16, 32, dtype=dtype))(torch.zeros(2, 32, dtype=dtype))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return True


def make_linear(weight: Tensor, bias: Tensor | None, weight_format: WeightFormat, prepack: bool) -> Linear:
    """A matrix `[outputs, inputs]`, given in the engine's number format, and its bias `[outputs]`, in a weight format.

    `prepack` uses oneDNN's prepacked product.
    """
    if weight_format == "int4" and Int4Linear.fits(weight):
        return Int4Linear(weight, bias)
    return PackedLinear(weight, bias) if prepack else PlainLinear(weight, bias)


def dtype_of(weight_format: WeightFormat) -> torch.dtype:
    """Number format of activations and of the cache."""
    return torch.float32 if weight_format == "fp32" else torch.bfloat16


def require_int4() -> None:
    """Raises `CapabilityMissing` if this torch lacks the 4-bit product."""
    if not hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu"):
        raise CapabilityMissing("int4", f"torch {torch.__version__}", alternative="weight_format='bf16'")


def has_amx() -> bool:
    """Whether the processor multiplies bf16 matrices in tiles."""
    return "amx_bf16" in processor_flags()


@cache
def processor_flags() -> frozenset[str]:
    """Feature flags of the first processor, as Linux names them (`amx_bf16`); none where the system lists none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        if line.startswith(("flags", "Features")):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


class WeightReader:
    """Tensors of a Hugging Face directory, read from `model.safetensors` or from its shards.

    Raises:
        DataError: There are no weights, or a file is broken.
    """

    def __init__(self, directory: Path) -> None:
        self._folder = directory
        self._file_of: dict[str, Path] = {}
        for path in _weight_files(directory):
            with _opened(path) as tensors:
                self._file_of.update(dict.fromkeys(tensors.keys(), path))

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        """One tensor, converted.

        Raises:
            DataError: No tensor has that name.
        """
        if name not in self._file_of:
            raise DataError(f"{self._folder} has no tensor {name!r}", hint="the weights do not match config.json")
        with _opened(self._file_of[name]) as tensors:
            value: Tensor = tensors.get_tensor(name)
        return value.to(dtype)


def _weight_files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        return [directory / str(name) for name in names]
    files = sorted(directory.glob("model*.safetensors"))
    if not files:
        raise DataError(f"{directory} holds no model*.safetensors", hint="convert the weights to safetensors first")
    return files


def _opened(path: Path) -> Any:
    """A safetensors file as a context manager."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(path), framework="pt")
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} is not a readable safetensors file: {error}", hint="fetch the model again") from error
