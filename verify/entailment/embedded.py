"""Entailment by our own cross-encoders, in this process: a small one and a base-size one.

They are sentence encoders, which `serving` downloads and checks, with trained changes of their weights
(`embedded_weights`). They read title, text and claim together. `training/judge/train.py` trains another one. Training
data and accuracy: docs/results/verification.md.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from ...core.errors import BackendError, DataError, UserError
from ...core.files import Progress
from ...core.settings import EncoderSettings, Settings
from ...serving.encoders.files import has_encoder
from ...serving.model_files.conversion import missing_extra
from ...serving.model_files.downloads import run_pull
from ...serving.model_thread import ModelThread, length_batches
from ..types import Pair, Support, support
from .embedded_network import PairTokenizer, TokenRow, make_batch
from .embedded_weights import MAX_BYTES, WeightDelta, apply_delta, parse_delta

if TYPE_CHECKING:
    import torch

    from .embedded_network import EncoderConfig

SETTINGS: Final = "judge"
"""Name of both judges' settings in [encoders]."""

_PAIRS_PER_TASK = 512
"""Pairs that are tokenized in one task of the model's thread."""

Size = Literal["small", "base"]


@dataclass(frozen=True)
class EmbeddedModel:
    """An embedded judge before it is loaded.

    Attributes:
        encoder: The encoder that was fine-tuned.
        max_words: Maximum words of evidence, next to a title and a claim; a word has about 1.4 tokens.
    """

    encoder: str
    max_words: int


MODELS: Final[Mapping[Size, EmbeddedModel]] = MappingProxyType(
    {
        "small": EmbeddedModel("local/all-minilm-l6-v2", 60),
        "base": EmbeddedModel("local/all-mpnet-base-v2", 140),
    }
)


class EmbeddedEntailment:
    """An embedded judge (see `Entailment`).

    Args:
        name: Its name in the configuration.
        tokens: The tokenizer of pairs.
        weights: The network's weights.
        config: The encoder's configuration.
        identity: Encoder and trained weights. It is the same for bf16 and fp32, whose probabilities differ by less than
            a calibration can resolve.
        max_words: Maximum words of evidence.
        temperature: Divisor of the logits.
        batch: Maximum pairs computed together.
    """

    def __init__(
        self,
        name: str,
        tokens: PairTokenizer,
        weights: dict[str, torch.Tensor],
        config: EncoderConfig,
        *,
        identity: str,
        max_words: int,
        temperature: float = 1.0,
        batch: int = 32,
    ) -> None:
        self.name, self.identity = name, identity
        self.max_words: int | None = max_words
        self._tokens, self._weights, self._config = tokens, weights, config
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
                logits = compute_logits(self._weights, self._config, make_batch(rows)).double() / self._temperature
                probabilities = logits.softmax(1).cpu().tolist()
        except RuntimeError as e:  # includes torch's out-of-memory error
            raise BackendError(
                f"{self.name} failed on {len(rows)} pairs: {e}",
                hint=f'lower batch_texts of "{SETTINGS}" in [encoders]',
            ) from e
        return [support(row) for row in probabilities]


def base_is_available(settings: Settings) -> bool:
    """Whether the base judge can be loaded without a download."""
    return has_encoder(MODELS["base"].encoder, settings.cache_dir)


async def load_embedded(
    settings: Settings, progress: Progress | None = None, *, size: Size = "small", file: Path | None = None
) -> EmbeddedEntailment:
    """Load an embedded judge, off the event loop.

    Args:
        settings: The cache directory, and `batch_texts`, `device` and `dtype` of the encoder "judge".
        progress: Called during the download of the encoder, from another thread.
        size: Which one.
        file: Other trained weights for its encoder; None is the packaged ones.

    Raises:
        UserError: The [local] extra is missing, or a setting does not apply.
        DataError: The weights or the encoder are damaged, or do not match.
        BackendUnavailable: The encoder cannot be downloaded, or the requested GPU does not exist.
    """
    return await run_pull(lambda cancel: _load(settings, progress, cancel, size, file), lambda judge: judge.aclose())


def load_delta(size: Size = "small", file: Path | None = None) -> WeightDelta:
    """Read the packaged trained weights, or those of a file.

    Raises:
        DataError: The file is missing or damaged.
    """
    path = resources.files(__package__).joinpath(f"{size}.safetensors") if file is None else file.expanduser()
    try:
        if isinstance(path, Path) and path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is too large for entailment weights")
        raw = path.read_bytes()
    except FileNotFoundError as e:
        hint = "install the package again" if file is None else "train them with training/judge/train.py"
        raise DataError(f"entailment weights {path} do not exist", hint=hint) from e
    except OSError as e:
        raise DataError(f"cannot read the entailment weights {path}: {e.strerror}") from e
    return parse_delta(raw, str(path))


def _load(
    settings: Settings, progress: Progress | None, cancel: threading.Event, size: Size, file: Path | None
) -> EmbeddedEntailment:
    chosen = settings.encoders.get(SETTINGS, EncoderSettings())
    if chosen.query_prompt or chosen.document_prompt or chosen.max_tokens is not None:
        raise UserError(
            f'the encoder settings of "{SETTINGS}" have a prompt or max_tokens, which do not apply to it',
            hint="set only batch_texts, device and dtype",
        )
    model = MODELS[size]
    delta = load_delta(size, file)
    try:
        import torch

        from ...serving.devices import choose_device
        from ...serving.encoders.files import find_encoder
        from ...serving.local.hardware import native_format
        from .embedded_network import merge_lora, read_encoder

        files = find_encoder(
            model.encoder, sentence=True, cache_dir=settings.cache_dir, progress=progress, cancel=cancel
        )
        before, config = read_encoder(files.directory)
        tokens = PairTokenizer(files.directory, config)
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    if delta.base != files.fingerprint:
        raise DataError(
            f"the entailment weights are for the encoder {delta.base[:12]}, but {model.encoder} is "
            f"{files.fingerprint[:12]}",
            hint="train them again with training/judge/train.py",
        )
    changed = apply_delta(delta, {name: tensor.numpy() for name, tensor in before.items()})
    del before  # the encoder is half a gigabyte: no more copies at once than needed
    device = choose_device(chosen.device)
    if chosen.dtype != "auto":
        dtype = getattr(torch, chosen.dtype)
    else:
        dtype = torch.bfloat16 if native_format(device) == "bf16" else torch.float32
    tensors = {name: torch.from_numpy(changed.pop(name)) for name in list(changed)}
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in merge_lora(tensors):
        weights[name] = tensor.to(device, dtype if name[0].isdigit() else torch.float32)
        del tensors[name]
    return EmbeddedEntailment(
        size if file is None else f"{size}:{file}",
        tokens,
        weights,
        config,
        identity=f"embedded-2:{files.fingerprint[:16]}+{delta.digest}",
        max_words=model.max_words,
        temperature=delta.temperature,
        batch=chosen.batch_texts,
    )
