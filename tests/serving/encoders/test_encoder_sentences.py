"""Embeddings by sentence-transformers: the real MiniLM, and a tiny model with prompts."""

import asyncio

import numpy as np
import pytest
import torch
import transformers
from reason.core.errors import BackendUnavailable, DataError, UnknownName, UserError
from reason.core.settings import Settings, load_settings
from reason.serving.encoders.embeddings import load_embedding_model
from reason.serving.encoders.protocols import EmbeddingModel

SENTENCES = [
    "A man is playing a guitar.",
    "Someone plays an instrument with strings.",
    "The stock market fell sharply on Monday.",
    "Shares dropped at the start of the week.",
    "x",
    "Photosynthesis turns light into chemical energy, " * 9,
]


def mean_pooled(folder, texts, longest):
    """Each text alone: the mean of transformers' last states, of length one."""
    tokenizer, model = (
        transformers.AutoTokenizer.from_pretrained(folder),
        transformers.AutoModel.from_pretrained(folder).eval(),
    )
    rows = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].double()
        mean = states.mean(0)
        rows.append((mean / mean.norm()).numpy())
    return np.array(rows)


@pytest.mark.real
async def test_minilm(minilm_files):
    model = await load_embedding_model(None, load_settings())
    assert isinstance(model, EmbeddingModel)
    assert (model.name, model.dimension, model.max_tokens) == ("local/all-minilm-l6-v2", 384, 256)
    vectors = await model.embed(SENTENCES)
    assert vectors.dtype == np.float32
    assert np.abs(vectors - mean_pooled(minilm_files.directory, SENTENCES, 256)).max() < 1e-5
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.5 > 0.2 > cosines[0, 2]
    assert cosines[2, 3] > 0.5 > 0.2 > cosines[1, 3]
    assert model.max_usd(SENTENCES) == 0
    await model.aclose()


async def opened(folder, **settings):
    name = f"local/{folder}"
    return await load_embedding_model(name, Settings(cache_dir=folder.parent / "cache", encoders={name: settings}))


async def test_prompts_come_from_the_model_or_the_settings(prompted_folder):
    model = await opened(prompted_folder)
    own = await opened(prompted_folder, query_prompt="ask: ", document_prompt="")
    expected = mean_pooled(prompted_folder, ["a b c", "find: a b c", "keep: a b c", "ask: a b c"], 40)
    found = [await model.embed(["a b c"], kind=kind) for kind in ("text", "query", "document")]
    found += [await own.embed(["a b c"], kind="query")]
    assert np.abs(np.concatenate(found) - expected).max() < 1e-5
    assert np.abs(await own.embed(["a b c"], kind="document") - expected[0]).max() < 1e-5
    await model.aclose()
    await own.aclose()


async def test_long_text_is_truncated_and_its_count_shows_it(prompted_folder):
    model = await opened(prompted_folder)
    shorter = await opened(prompted_folder, max_tokens=10)
    assert (model.max_tokens, shorter.max_tokens) == (40, 10)
    assert model.identity != shorter.identity
    assert await model.count_tokens(["a" * 100, "ab"]) == [100, 2]
    assert await model.count_tokens([]) == []
    heard = []
    long, cut = await model.embed(["a" * 100, "a" * 40], charged=heard.append)
    assert np.allclose(long, cut)
    assert sum(u.prompt_tokens for u in heard) == 80
    assert np.abs(await shorter.embed(["abc" * 20]) - mean_pooled(prompted_folder, ["abc" * 20], 10)).max() < 1e-5
    await model.aclose()
    await shorter.aclose()


async def test_cancelling_stops_between_batches_of_texts(prompted_folder):
    model = await opened(prompted_folder, batch_texts=1)
    task = asyncio.create_task(model.embed([f"text {i}" for i in range(3000)]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await model.embed(["again"])).shape == (1, 32)
    await model.aclose()
    await model.aclose()
    with pytest.raises(BackendUnavailable, match="closed"):
        await model.embed(["new"])


async def test_invalid_embedding_models(reranker_folder, tmp_path):
    with pytest.raises(DataError, match=r"no modules\.json"):
        await opened(reranker_folder)
    with pytest.raises(DataError, match="no such model directory"):
        await opened(tmp_path / "nothing")
    with pytest.raises(UserError, match="GGUF"):
        await load_embedding_model("local/x.gguf", Settings(cache_dir=tmp_path))
    with pytest.raises(UnknownName) as told:
        await load_embedding_model("all-minilm-l6", Settings(cache_dir=tmp_path))
    assert told.value.nearest[0] == "local/all-minilm-l6-v2"
    with pytest.raises(UnknownName) as told:
        await load_embedding_model("local/all-minilm-l6v2", Settings(cache_dir=tmp_path))
    assert told.value.nearest[0] == "local/all-minilm-l6-v2"
    with pytest.raises(UserError, match="hosted_vllm/"):
        await load_embedding_model("hosted_vllm_pooling/x", Settings(cache_dir=tmp_path))


async def test_custom_module_is_not_run(prompted_folder, tmp_path):
    import shutil

    folder = tmp_path / "foreign"
    shutil.copytree(prompted_folder, folder)
    text = (folder / "modules.json").read_text()
    (folder / "modules.json").write_text(text.replace("sentence_transformers.models.Pooling", "evil.Pooling"))
    with pytest.raises(DataError, match=r"foreign module evil\.Pooling"):
        await opened(folder)


async def test_unreachable_hub_fails_quickly(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BackendUnavailable, match="cannot reach the hub"):
        await load_embedding_model("local/some-organisation/no-such-model", Settings(cache_dir=tmp_path))
