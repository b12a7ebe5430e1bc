"""A device of which there is none, for machines with a CPU alone: it computes, and mixes with nothing.

Its tensors say that they lie on "meta", and hold their numbers in tensors of the CPU. As on a GPU, an operation on one
of them and on a tensor of the CPU is an error (but for single numbers, indices and copies), and NumPy cannot see them.
So a program that computes the right numbers here has made nothing on the CPU by accident.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

PRETENDED = torch.device("meta")
_INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
_COPIES = ("aten::copy_", "aten::_to_copy", "aten::to")


class There(torch.Tensor):
    """A tensor that lies on the device; `here` has its numbers."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> There:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=PRETENDED,
        )
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    """What is made on the device without a tensor of it, as zeros."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """Numbers on their way to a tensor, which torch leaves out on "meta", and back."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if func is torch.tensor and torch.device(given.get("device") or "cpu") == PRETENDED:
            return There(func(*args, **(given | {"device": "cpu"})))
        if func is torch.Tensor.tolist and isinstance(args[0], There):
            return args[0].here.tolist()
        return func(*args, **given)


@contextmanager
def pretending() -> Iterator[None]:
    """Let "meta" be the device, on this thread."""
    with ExitStack() as stack:
        stack.enter_context(_Literals())
        stack.enter_context(_Operations())
        yield


def brought(tensor: torch.Tensor) -> torch.Tensor:
    """Its numbers, if it lies there; an error if not."""
    assert isinstance(tensor, There), f"this lies on {tensor.device}"
    return tensor.here


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given, _ = tree_flatten((args, kwargs))
    tensors = [x for x in given if isinstance(x, torch.Tensor)]
    there = [x for x in tensors if isinstance(x, There)]
    name = func._schema.name
    for x in tensors:
        if not isinstance(x, There) and x.device == PRETENDED:
            raise RuntimeError(f"{name}: a tensor was made on {PRETENDED} without its numbers, as of a list of indices")
    if there and name not in _COPIES:
        indices = {id(x) for x in tree_flatten(args[1])[0]} if name in _INDEXING else set()
        for x in tensors:
            if not isinstance(x, There) and x.dim() and id(x) not in indices:
                raise RuntimeError(f"{name}: tensors lie on two devices, {PRETENDED} and {x.device}")
    target = next((x for x in given if isinstance(x, torch.device)), None)
    plain_args, plain = tree_map(_on_the_cpu, (args, kwargs))
    made = func(*plain_args, **plain)
    if name == "aten::copy_":
        return args[0]
    if not (there if target is None else target == PRETENDED):
        return made
    known = {id(x.here): x for x in there}

    def wrapped(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        return known[id(x)] if id(x) in known else There(x)

    return tree_map(wrapped, made)


def _on_the_cpu(x: Any) -> Any:
    if isinstance(x, torch.device):
        return torch.device("cpu")
    return x.here if isinstance(x, There) else x
