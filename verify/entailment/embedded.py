"""`EmbeddedEntailment`: our own small judge of text and claim, in this process; and `load_embedded`.

It is all-MiniLM-L6-v2, which `serving` fetches and checks, with the change that a training made (`embedded_delta`):
a cross-encoder that reads title, text and claim together. `reason train entailment` makes another one. What it was
trained on, and how well it judges, is on its card (docs/results/entailment.md).
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
"""The encoder whose weights are changed."""
FILE: Final = "embedded.safetensors"

_MAX_WORDS = 60
"""Words of evidence that fit beside a title and a claim: a word has about 1.4 tokens."""
_READ_AT_ONCE = 512
"""Pairs whose words are compared in one piece of work."""


class EmbeddedEntailment:
    """The embedded judge (see `Entailment`).

    Args:
        name: The string it was opened by.
        tokens: Reads pairs.
        weights: The network's weights.
        shape: Its shape.
        identity: Changes whenever a pair could get other probabilities.
        temperature: What logits are divided by.
        batch: Most pairs computed together.
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
        """What each evidence says of its claim, in batches of like length; never None (see `Entailment.judge`).

        Cancelling stops it between two batches.

        Raises:
            BackendError: It could not be computed.
        """
        rows: list[TokenRow] = []
        for start in range(0, len(pairs), _READ_AT_ONCE):
            part = pairs[start : start + _READ_AT_ONCE]
            rows.extend(await self._thread.run(partial(self._tokens.rows, part)))
        found: list[Support | None] = [None] * len(rows)
        for places in length_batches([len(row.ids) for row in rows], self._batch):
            told = await self._thread.run(partial(self._compute, [rows[i] for i in places]))
            for i, one in zip(places, told, strict=True):
                found[i] = one
        return found

    async def aclose(self) -> None:
        """Let the batch under way end and free the weights; idempotent."""
        await self._thread.aclose()
        self._weights = {}

    def _compute(self, rows: list[TokenRow]) -> list[Support]:
        import torch

        from .embedded_network import compute_logits

        try:
            with torch.inference_mode():
                logits = compute_logits(self._weights, self._shape, make_batch(rows)).double() / self._temperature
                chances = logits.softmax(1).cpu().tolist()
        except RuntimeError as e:  # torch's class for a full memory too
            raise BackendError(
                f"{self.name} failed on {len(rows)} pairs: {e}",
                hint=f'lower batch_texts of "{NAME}" in the section [encoders]',
            ) from e
        return [support(row) for row in chances]


async def load_embedded(
    settings: Settings, progress: Progress | None = None, *, file: Path | None = None
) -> EmbeddedEntailment:
    """Open the embedded judge, off the event loop.

    Args:
        settings: Where files are kept; the section `encoders` for "embedded": `batch_texts`, `device` and `dtype`.
        progress: Told of a fetch of the encoder, from another thread.
        file: Another training's change; None is the one that comes with the package.

    Raises:
        UserError: The [local] extra is missing, or a setting has no meaning here.
        DataError: The change or the encoder is damaged, or they do not fit.
        BackendUnavailable: The encoder is not here and cannot be fetched, or there is no GPU where one is asked for.
    """
    return await run_pull(lambda cancel: _load(settings, progress, cancel, file), lambda judge: judge.aclose())


def load_delta(file: Path | None = None) -> WeightDelta:
    """Read a change: the one that comes with the package, or a file.

    Raises:
        DataError: There is none, or it is damaged.
    """
    place = resources.files(__package__).joinpath(FILE) if file is None else file.expanduser()
    try:
        if isinstance(place, Path) and place.stat().st_size > MAX_BYTES:
            raise DataError(f"{place} is too large for entailment weights")
        raw = place.read_bytes()
    except FileNotFoundError as e:
        hint = "install the package again" if file is None else "reason train entailment makes one"
        raise DataError(f"there are no entailment weights {place}", hint=hint) from e
    except OSError as e:
        raise DataError(f"cannot read the entailment weights {place}: {e.strerror}") from e
    return parse_delta(raw, str(place))


def _load(
    settings: Settings, progress: Progress | None, cancel: threading.Event, file: Path | None
) -> EmbeddedEntailment:
    chosen = settings.encoders.get(NAME, EncoderSettings())
    if chosen.query_prompt or chosen.document_prompt or chosen.max_tokens not in (None, MAX_TOKENS):
        raise UserError(
            f'the encoder settings of "{NAME}" say a prompt or max_tokens, which a trained judge does not take',
            hint="set batch_texts, device and dtype alone",
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
            f"the entailment weights are for the encoder {delta.base[:12]}, and {BASE} is {files.fingerprint[:12]}",
            hint="train anew: reason train entailment",
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
