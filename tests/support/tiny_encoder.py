"""BERT and MPNet encoders of a few thousand random weights, in a directory of files; they read letters."""

from __future__ import annotations

import json
import string
from pathlib import Path

SIZE, LAYERS, HEADS, INNER, PLACES = 16, 2, 2, 32, 160


def write_tiny_encoder(folder: Path, seed: int = 0) -> Path:
    """Write it; returns the folder."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    letters = string.ascii_lowercase + string.digits
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *("##" + c for c in letters), *string.punctuation]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": len(tokens),
        "hidden_size": SIZE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": PLACES,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    draw = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(tokens), SIZE),
        "embeddings.position_embeddings.weight": (PLACES, SIZE),
        "embeddings.token_type_embeddings.weight": (2, SIZE),
    }
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= {f"{layer}.attention.{name}.weight": (SIZE, SIZE), f"{layer}.attention.{name}.bias": (SIZE,)}
        shapes |= {f"{layer}.intermediate.dense.weight": (INNER, SIZE), f"{layer}.intermediate.dense.bias": (INNER,)}
        shapes |= {f"{layer}.output.dense.weight": (SIZE, INNER), f"{layer}.output.dense.bias": (SIZE,)}
    weights = {name: 0.3 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    norms = ["embeddings.LayerNorm"]
    norms += [f"encoder.layer.{i}.{part}.LayerNorm" for i in range(LAYERS) for part in ("attention.output", "output")]
    for name in norms:
        weights |= {f"{name}.weight": torch.ones(SIZE), f"{name}.bias": torch.zeros(SIZE)}
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder


def write_tiny_mpnet(folder: Path, seed: int = 0) -> Path:
    """The same as an MPNet encoder, with MPNet's own special tokens; returns the folder."""
    import torch
    from transformers import MPNetConfig, MPNetModel

    write_tiny_encoder(folder, seed)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    for token in ("<s>", "</s>"):
        vocabulary[token] = len(vocabulary)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    torch.manual_seed(seed)
    config = MPNetConfig(
        vocab_size=len(vocabulary),
        hidden_size=SIZE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=INNER,
        max_position_embeddings=300,
        initializer_range=0.3,
    )
    MPNetModel(config).save_pretrained(str(folder))
    return folder
