"""Entailment by our own small cross-encoder, in this process.

It is all-MiniLM-L6-v2, which `serving` downloads and checks, with trained changes of its weights (`embedded_weights`).
It reads title, text and claim together. `reason train entailment` trains another one. Its training data and accuracy
are on its card (docs/results/entailment.md).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ...core.errors import BackendError, DataError, UserError
from ...core.settings import EncoderSettings, Settings
from ...serving.model_files.conversion import missing_extra
from ...serving.model_files.downloads import Progress, run_pull
from ...serving.model_thread import ModelThread, length_batches
from ..types import Support, support
from .embedded_network import MAX_TOKENS, PairTokenizer, TokenRow, make_batch
from .embedded_weights import MAX_BYTES, WeightDelta, apply_delta, parse_delta
from .protocol import Pair

if TYPE_CHECKING:
    import torch

    from .embedded_network import EncoderShape

NAME: Final = "embedded"
BASE: Final = "local/all-minilm-l6-v2"
"""The encoder that is fine-tuned."""
FILE: Final = "embedded.safetensors"

_MAX_WORDS = 60
"""Maximum words of evidence, next to a title and a claim; a word has about 1.4 tokens."""
_PAIRS_PER_TASK = 512
"""Pairs that are tokenized in one task of the model's thread."""


class EmbeddedEntailment:
    """The embedded judge (see `Entailment`).

    Args:
        name: Its name in the configuration.
        tokens: The tokenizer of pairs.
        weights: The network's weights.
        shape: Its shape.
        identity: Changes whenever a pair could get other probabilities.
        temperature: Divisor of the logits.
        batch: Maximum pairs computed together.
    """

    max_words: int | None = _MAX_WORDS

    def __init__(
        self,
        name: str,
        tokens: PairTokenizer,
        weights: dict[str, torch.Tensor],
        shape: EncoderShape,
        *,
        identity: str,
        temperature: float = 1.0,
        batch: int = 32,
    ) -> None:
        self.name, self.identity = name, identity
        self._tokens, self._weights, self._shape = tokens, weights, shape
        self._temperature, self._batch = temperature, batch
        self._thread = ModelThread(name)

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """The support of each pair, computed in batches of similar length; never None (see `Entailment.judge`).

        Cancellation takes effect between two batches.

        Raises:
            BackendError: The computation failed.
        """
        rows: list[TokenRow] = []
        for start in range(0, len(pairs), _PAIRS_PER_TASK):
            part = pairs[start : start + _PAIRS_PER_TASK]
            rows.extend(await self._thread.run(partial(self._tokens.rows, part)))
        supports: list[Support | None] = [None] * len(rows)
        for batch in length_batches([len(row.ids) for row in rows], self._batch):
            computed = await self._thread.run(partial(self._compute, [rows[i] for i in batch]))
            for i, one in zip(batch, computed, strict=True):
                supports[i] = one
        return supports

    async def aclose(self) -> None:
        """Wait for the current batch and free the weights; idempotent."""
        await self._thread.aclose()
        self._weights = {}

    def _compute(self, rows: list[TokenRow]) -> list[Support]:
        import torch

        from .embedded_network import compute_logits

        try:
            with torch.inference_mode():
                logits = compute_logits(self._weights, self._shape, make_batch(rows)).double() / self._temperature
                probabilities = logits.softmax(1).cpu().tolist()
        except RuntimeError as e:  # includes torch's out-of-memory error
            raise BackendError(
                f"{self.name} failed on {len(rows)} pairs: {e}",
                hint=f'lower batch_texts of "{NAME}" in [encoders]',
            ) from e
        return [support(row) for row in probabilities]


async def load_embedded(
    settings: Settings, progress: Progress | None = None, *, file: Path | None = None
) -> EmbeddedEntailment:
    """Load the embedded judge, off the event loop.

    Args:
        settings: The cache directory, and `batch_texts`, `device` and `dtype` of the encoder "embedded".
        progress: Called during the download of the encoder, from another thread.
        file: Other trained weights; None is the packaged ones.

    Raises:
        UserError: The [local] extra is missing, or a setting does not apply.
        DataError: The weights or the encoder are damaged, or do not match.
        BackendUnavailable: The encoder cannot be downloaded, or the requested GPU does not exist.
    """
    return await run_pull(lambda cancel: _load(settings, progress, cancel, file), lambda judge: judge.aclose())


def load_delta(file: Path | None = None) -> WeightDelta:
    """Read the packaged trained weights, or those of a file.

    Raises:
        DataError: The file is missing or damaged.
    """
    path = resources.files(__package__).joinpath(FILE) if file is None else file.expanduser()
    try:
        if isinstance(path, Path) and path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is too large for entailment weights")
        raw = path.read_bytes()
    except FileNotFoundError as e:
        hint = "install the package again" if file is None else "train them: reason train entailment"
        raise DataError(f"entailment weights {path} do not exist", hint=hint) from e
    except OSError as e:
        raise DataError(f"cannot read the entailment weights {path}: {e.strerror}") from e
    return parse_delta(raw, str(path))


def _load(
    settings: Settings, progress: Progress | None, cancel: threading.Event, file: Path | None
) -> EmbeddedEntailment:
    chosen = settings.encoders.get(NAME, EncoderSettings())
    if chosen.query_prompt or chosen.document_prompt or chosen.max_tokens not in (None, MAX_TOKENS):
        raise UserError(
            f'the encoder settings of "{NAME}" have a prompt or max_tokens, which do not apply to it',
            hint="set only batch_texts, device and dtype",
        )
    delta = load_delta(file)
    try:
        import torch

        from ...serving.devices import choose_device
        from ...serving.encoders.files import find_encoder
        from .embedded_network import read_encoder

        files = find_encoder(BASE, sentence=True, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
        tokens = PairTokenizer(files.directory)
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    if delta.base != files.fingerprint:
        raise DataError(
            f"the entailment weights are for the encoder {delta.base[:12]}, but {BASE} is {files.fingerprint[:12]}",
            hint="train them again: reason train entailment",
        )
    before, shape = read_encoder(files.directory)
    changed = apply_delta(delta, {name: tensor.numpy() for name, tensor in before.items()})
    device = choose_device(chosen.device)
    dtype = torch.float32 if chosen.dtype == "auto" else getattr(torch, chosen.dtype)
    head = ("words", "positions", "types", "marks", "hidden.", "labels.", "features.")
    weights = {
        name: torch.from_numpy(array).to(device, torch.float32 if name.startswith(head) else dtype)
        for name, array in changed.items()
    }
    return EmbeddedEntailment(
        NAME if file is None else f"{NAME}:{file}",
        tokens,
        weights,
        shape,
        identity=f"embedded-1:{files.fingerprint}+{delta.digest}+{str(dtype).removeprefix('torch.')}",
        temperature=delta.temperature,
        batch=chosen.batch_texts,
    )
