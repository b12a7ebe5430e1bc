"""Loading of models through transformers from a directory: none of its code is run, nothing is downloaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core.errors import DataError
from ..core.settings import Device, Dtype
from .devices import choose_device
from .model_files.checkpoint import read_config

LOCAL_FILES_ONLY: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
"""Arguments of every loading call."""


def dtype_argument(dtype: Dtype) -> dict[str, Any]:
    """The number format as `from_pretrained` takes it; its name changed in transformers 4.56."""
    import torch
    import transformers

    numbers = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    value = "auto" if dtype == "auto" else getattr(torch, dtype)
    return {"dtype" if numbers >= (4, 56) else "torch_dtype": value}


def load_tokenizer(directory: Path) -> Any:
    """The tokenizer of a directory, as transformers has it.

    Raises:
        DataError: It cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(directory), **LOCAL_FILES_ONLY)
    except (OSError, ValueError, KeyError) as e:
        raise DataError(f"cannot read the tokenizer in {directory}: {first_line(e)}") from e


def load_weights(kind: Any, directory: Path, dtype: Dtype, device: Device, **more: Any) -> Any:
    """A model of a transformers class with all of its weights, ready to compute.

    Args:
        kind: The class, with `from_pretrained`.
        directory: The model's directory.
        dtype: Number format.
        device: Where it runs.
        more: Further arguments of `from_pretrained`.

    Raises:
        DataError: The directory does not hold such a model, or not all of its weights.
        BackendUnavailable: The device is not there.
    """
    where = choose_device(device)
    try:
        with without_progress_bars():
            model, report = kind.from_pretrained(
                str(directory),
                use_safetensors=True,
                output_loading_info=True,
                **dtype_argument(dtype),
                **LOCAL_FILES_ONLY,
                **more,
            )
    except (OSError, ValueError, KeyError, RuntimeError) as e:
        raise DataError(f"cannot load the model in {directory}: {first_line(e)}") from e
    wrong = [*report.get("missing_keys", ()), *(str(k) for k in report.get("mismatched_keys", ()))]
    if wrong:
        raise DataError(
            f"the model in {directory} lacks weights, for example {sorted(map(str, wrong))[0]}",
            hint="it is another kind of model than in its configuration, or incomplete",
        )
    return model.to(where).eval()


def special_token_splitter(tokenizer: Any) -> Callable[[str], str]:
    """A function that splits a tokenizer's special tokens in a text by a space, so that they are read as plain text.

    Args:
        tokenizer: A tokenizer of transformers.
    """
    tokens = sorted({str(token) for token in tokenizer.all_special_tokens if str(token)}, key=len, reverse=True)
    if not tokens:
        return str
    pattern = re.compile("|".join(map(re.escape, tokens)))
    return lambda text: pattern.sub(lambda match: f"{match[0][:1]} {match[0][1:]}" if len(match[0]) > 1 else " ", text)


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keep transformers' progress bars from the user's terminal while a model is loaded."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]


def architecture_of(directory: Path) -> str:
    """The first architecture that the directory's configuration names; empty if it names none."""
    named = read_config(directory).get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def min_limit(*limits: Any) -> int | None:
    """The smallest of the limits that are real ones; None if none is."""
    # tokenizers without a limit say 10^30
    real = [n for n in limits if isinstance(n, int) and 0 < n < 1 << 30]
    return min(real) if real else None


def first_line(error: BaseException) -> str:
    """The first line that an error states."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
