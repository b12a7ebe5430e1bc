"""Cross-encoders against transformers, and one behind HTTP."""

import numpy as np
import pytest
import torch
import transformers
from reason.core.errors import BackendUnavailable, DataError, UnknownName, UserError
from reason.core.settings import Settings
from reason.serving.encoders.cross_encoders import load_cross_encoder
from reason.serving.encoders.protocols import CrossEncoder

PAIRS = [("a query", "one text"), ("a query", "another, much longer text " * 8), ("q", "t"), ("a query", "third")]


def plain(folder, pairs):
    """Each pair alone, by transformers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = []
    for a, b in pairs:
        with torch.no_grad():
            ids = tokenizer(a, b, return_tensors="pt")
            rows.append(model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]).logits[0].numpy())
    return np.array(rows)


async def opened(folder, **settings):
    name = f"local/{folder}"
    return await load_cross_encoder(name, Settings(cache_dir=folder.parent / "cache", encoders={name: settings}))


async def test_reranker(reranker_folder):
    model = await opened(reranker_folder, batch_texts=3)
    assert isinstance(model, CrossEncoder)
    assert len(model.labels) == 1
    expected = plain(reranker_folder, PAIRS)
    found = await model.logits(PAIRS)
    assert (found.shape, found.dtype) == ((4, 1), np.float32)
    assert np.abs(found - expected).max() < 1e-5
    assert np.ptp(found) > 0.01, "the tiny model tells nothing apart"
    assert (await model.logits([])).shape == (0, 1)
    await model.aclose()
    await model.aclose()
    with pytest.raises(BackendUnavailable, match="closed"):
        await model.logits(PAIRS)


async def test_classes_have_their_names(nli_folder):
    model = await opened(nli_folder)
    assert model.labels == ("contradiction", "entailment", "neutral")
    assert np.abs(await model.logits(PAIRS) - plain(nli_folder, PAIRS)).max() < 1e-5
    await model.aclose()


async def test_invalid_pairs_and_models(nli_folder, prompted_folder, tmp_path):
    model = await opened(nli_folder)
    for wrong in ("ab", ("a",), ("a", 1)):
        with pytest.raises(UserError, match="pair 0 is not two texts"):
            await model.logits([wrong])
    await model.aclose()
    with pytest.raises(DataError, match="BertModel"):
        await opened(prompted_folder)
    with pytest.raises(UnknownName) as told:
        await load_cross_encoder("lokal/x", Settings(cache_dir=tmp_path))
    assert told.value.nearest == ("local/x",)
