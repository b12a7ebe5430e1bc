"""The network: the encoder computes what transformers computes, and padding and neighbours change nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from reason.core.errors import DataError
from reason.verify.entailment.embedded import (
    HIDDEN,
    MAX_CLAIM_TOKENS,
    EncoderConfig,
    PairTokenizer,
    compute_logits,
    make_batch,
    merge_lora,
    read_encoder,
)
from reason.verify.entailment.embedded_features import FEATURES, MARKS
from reason.verify.types import Pair
from support.tiny_encoder import SIZE, write_tiny_encoder, write_tiny_mpnet
from train import init_head, init_lora

BERT = EncoderConfig("bert", 2, 2, SIZE, 1e-12)

PAIRS = [
    Pair("He was born in 1967.", "Ann was born in 1968.", "Ann"),
    Pair("b", "a"),
    Pair("The film made 12 million in its first week in the cinemas.", "The film made more than 10 million.", "Film"),
    Pair("", ""),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def drawn(folder: Path) -> tuple[dict[str, torch.Tensor], object]:
    """Weights of which none is 0."""
    weights, config = read_encoder(folder)
    generator = torch.Generator().manual_seed(5)
    head = {n: 0.2 * torch.randn(t.shape, generator=generator) for n, t in init_head(config, 0).items()}
    return {**weights, **head}, config


def first_vector_head(config: EncoderConfig) -> dict[str, torch.Tensor]:
    """A head that scores the first token's vector alone; its marks are 0, so the encoder is as it was."""
    head = init_head(config, 0)
    head["hidden.weight"] = torch.zeros(HIDDEN, 4 * SIZE + len(FEATURES))
    head["hidden.weight"][:SIZE, :SIZE] = torch.eye(SIZE)
    head["labels.weight"] = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(1))
    return head


def test_the_encoder_is_the_one_of_transformers(folder):
    from transformers import BertModel

    weights, config = read_encoder(folder)
    head = first_vector_head(config)
    batch = make_batch(PairTokenizer(folder, read_encoder(folder)[1]).rows(PAIRS))
    theirs = BertModel.from_pretrained(str(folder)).eval()
    with torch.no_grad():
        hidden = theirs(
            input_ids=torch.from_numpy(batch.ids),
            token_type_ids=torch.from_numpy(batch.types),
            attention_mask=torch.from_numpy(batch.real).long(),
        ).last_hidden_state[:, 0]
        expected = torch.nn.functional.gelu(hidden) @ head["labels.weight"][:, :SIZE].T
        found = compute_logits({**weights, **head}, config, batch)
    assert torch.allclose(found, expected, atol=1e-5)


def test_mpnet_is_the_one_of_transformers(tmp_path):
    from transformers import MPNetModel

    folder = write_tiny_mpnet(tmp_path)
    weights, config = read_encoder(folder)
    head = first_vector_head(config)
    pairs = [*PAIRS, Pair("x " * 400, "claim")]  # distances beyond the largest bucket
    batch = make_batch(PairTokenizer(folder, config).rows(pairs))
    assert batch.ids.shape[1] == config.max_tokens == 256
    theirs = MPNetModel.from_pretrained(str(folder)).eval()
    ids = torch.from_numpy(np.where(batch.real, batch.ids, theirs.config.pad_token_id))
    with torch.no_grad():
        hidden = theirs(input_ids=ids, attention_mask=torch.from_numpy(batch.real).long()).last_hidden_state[:, 0]
        expected = torch.nn.functional.gelu(hidden) @ head["labels.weight"][:, :SIZE].T
        found = compute_logits({**weights, **head}, config, batch)
    assert torch.allclose(found, expected, atol=1e-4)


def test_merged_low_rank_changes_compute_the_same(folder, drawn):
    weights, config = drawn
    generator = torch.Generator().manual_seed(7)
    lora = init_lora(weights, config, 3, 0)
    assert all(not tensor.any() for name, tensor in lora.items() if name.endswith(".b"))
    changed = {n: 0.2 * torch.randn(t.shape, generator=generator) for n, t in lora.items()}
    batch = make_batch(PairTokenizer(folder, config).rows(PAIRS))
    merged = dict(merge_lora({**weights, **changed}))
    assert set(merged) == set(weights)
    with torch.no_grad():
        before = compute_logits(weights, config, batch)
        assert torch.allclose(compute_logits({**weights, **lora}, config, batch), before, atol=1e-6)
        with_change = compute_logits({**weights, **changed}, config, batch)
        assert not torch.allclose(with_change, before, atol=1e-2)
        assert torch.allclose(compute_logits(merged, config, batch), with_change, atol=1e-4)


def test_padding_and_neighbours_change_nothing(folder, drawn):
    weights, config = drawn
    rows = PairTokenizer(folder, read_encoder(folder)[1]).rows(PAIRS)
    with torch.no_grad():
        together = compute_logits(weights, config, make_batch(rows))
        alone = torch.cat([compute_logits(weights, config, make_batch([row])) for row in rows])
    assert torch.isfinite(together).all()
    assert torch.allclose(together, alone, atol=1e-5)


def test_a_pair_becomes_tokens_text_first(folder):
    row = PairTokenizer(folder, read_encoder(folder)[1]).rows([Pair("bc", "d", "a")])[0]
    tokenizer = PairTokenizer(folder, read_encoder(folder)[1])._tokenizer
    assert [tokenizer.id_to_token(i) for i in row.ids] == ["[CLS]", "a", ":", "b", "##c", "[SEP]", "d", "[SEP]"]
    assert row.claim == 6
    batch = make_batch([row])
    assert batch.types.tolist() == [[0, 0, 0, 0, 0, 0, 1, 1]]
    assert batch.claim.tolist() == [[False] * 6 + [True, False]]
    assert batch.evidence.tolist() == [[False] + [True] * 5 + [False] * 2]


def test_marks_stand_on_the_tokens_of_their_words(folder):
    row = PairTokenizer(folder, read_encoder(folder)[1]).rows([Pair("ab", "ab 12")])[0]
    told = [MARKS[mark] for mark in row.marks[row.claim : -1]]
    assert told == ["claim: in the text"] * 2 + ["claim: number that the text lacks"] * 2


def test_long_texts_are_cut_and_the_claim_is_kept(folder):
    config = read_encoder(folder)[1]
    row = PairTokenizer(folder, config).rows([Pair("x " * 400_000, "claim", "title " * 100)])[0]
    assert len(row.ids) == config.max_tokens == 128
    assert len(row.ids) - row.claim == len("claim") + 1
    huge = PairTokenizer(folder, read_encoder(folder)[1]).rows([Pair("text", "y " * 500_000)])[0]
    assert len(huge.ids) - huge.claim == MAX_CLAIM_TOKENS + 1


def test_a_folder_without_an_encoder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no BERT or MPNet encoder"):
        read_encoder(tmp_path)
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        PairTokenizer(tmp_path, BERT)
    write_tiny_encoder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match="no BERT or MPNet encoder"):
        read_encoder(tmp_path)
