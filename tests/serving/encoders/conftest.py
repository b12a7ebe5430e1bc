"""The real MiniLM where it can be had, and tiny encoders with random weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from reason.core.errors import BackendUnavailable
from reason.core.settings import load_settings

sys.path.insert(0, str(Path(__file__).parents[1] / "rewards"))


@pytest.fixture(scope="session")
def one_thread() -> None:
    """Torch on one thread: these models are too small for two."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def minilm_files(one_thread: None) -> Any:
    """The default embedding model in the user's own cache; tests are skipped where it cannot be had."""
    pytest.importorskip("sentence_transformers")
    from reason.serving.encoders.files import find_encoder

    try:
        return find_encoder("local/all-minilm-l6-v2", sentence=True, cache_dir=load_settings().cache_dir)
    except BackendUnavailable as e:
        pytest.skip(f"local/all-minilm-l6-v2 cannot be had: {e}")


def bert(folder: Path, kind: Any, **config: Any) -> Path:
    import tiny_rewards
    import torch
    from transformers import BertConfig

    torch.manual_seed(5)
    tiny_rewards.tokenizer(folder, chat=False)
    sizes = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    kind(
        BertConfig(**sizes, num_attention_heads=2, max_position_embeddings=512, initializer_range=0.5, **config)
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reranker_folder(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertForSequenceClassification

    return bert(tmp_path_factory.mktemp("cross") / "reranker", BertForSequenceClassification, num_labels=1)


@pytest.fixture(scope="session")
def nli_folder(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertForSequenceClassification

    names = {0: "contradiction", 1: "entailment", 2: "neutral"}
    return bert(
        tmp_path_factory.mktemp("cross") / "nli",
        BertForSequenceClassification,
        num_labels=3,
        id2label=names,
        label2id={v: k for k, v in names.items()},
    )


@pytest.fixture(scope="session")
def prompted_folder(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers model with prompts and a short limit."""
    from transformers import BertModel

    folder = bert(tmp_path_factory.mktemp("sentence") / "prompted", BertModel)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40, "do_lower_case": False}))
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "find: ", "passage": "keep: "}, "default_prompt_name": "query"})
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})
    )
    return folder
