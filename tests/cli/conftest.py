"""Fixtures of the command line's tests: a home of their own, a scripted model, a tiny real one, the process itself."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from reason.cli.main import main
from reason.core.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[1]))
from scripted_model import Script, ScriptedModel, replies

Cli = Callable[..., tuple[int, str, str]]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LINES = ("What is the capital of France? Paris.", "Let us think step by step. The answer is 42.", "one two three four")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home: no settings, no runs, no cached models; the working folder is another empty one."""
    for name in [n for n in os.environ if n.startswith("REASON_") or n in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")]:
        monkeypatch.delenv(name)
    for variable, folder in (("XDG_CONFIG_HOME", "config"), ("XDG_DATA_HOME", "data"), ("XDG_CACHE_HOME", "cache")):
        monkeypatch.setenv(variable, str(tmp_path / folder))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return tmp_path


@pytest.fixture
def cli(home: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command in this process; returns exit status, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScriptedModel]:
    """Makes every model name open one scripted model, and returns it."""

    def install(script: Script | None = None, **options: Any) -> ScriptedModel:
        model = ScriptedModel(script or replies("The answer is 42."), **options)

        async def open_model(name: str, settings: Settings, *_progress: object) -> ScriptedModel:
            return model

        monkeypatch.setattr("reason.agents.reasoner.open_model", open_model)
        return model

    return install


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real, tiny Llama of random weights: 2 layers of width 64, a byte-level tokenizer."""
    numpy = pytest.importorskip("numpy")
    safetensors = pytest.importorskip("safetensors.numpy")
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    vocabulary = write_tokenizer(folder)
    hidden, inner, heads, kv_heads, layers = 64, 128, 4, 2, 2
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "max_position_embeddings": 65_536,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    rng = numpy.random.default_rng(0)

    def weight(*shape: int) -> Any:
        return (rng.standard_normal(shape) * 0.1).astype(numpy.float32)

    tensors = {"model.embed_tokens.weight": weight(vocabulary, hidden), "model.norm.weight": weight(hidden) + 1}
    for i in range(layers):
        layer = f"model.layers.{i}"
        tensors |= {
            f"{layer}.input_layernorm.weight": weight(hidden) + 1,
            f"{layer}.post_attention_layernorm.weight": weight(hidden) + 1,
            f"{layer}.self_attn.q_proj.weight": weight(hidden, hidden),
            f"{layer}.self_attn.k_proj.weight": weight(kv_heads * hidden // heads, hidden),
            f"{layer}.self_attn.v_proj.weight": weight(kv_heads * hidden // heads, hidden),
            f"{layer}.self_attn.o_proj.weight": weight(hidden, hidden),
            f"{layer}.mlp.gate_proj.weight": weight(inner, hidden),
            f"{layer}.mlp.up_proj.weight": weight(inner, hidden),
            f"{layer}.mlp.down_proj.weight": weight(hidden, inner),
        }
    safetensors.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_tokenizer(folder: Path) -> int:
    """Train a byte-level tokenizer on a few lines; returns the size of its vocabulary."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    specials = ["<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=specials,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": CHAT_TEMPLATE,
        "model_max_length": 65_536,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return int(tokenizer.get_vocab_size())


@pytest.fixture
def process(home: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command as a process of its own; what still runs in the end is killed."""
    started: list[subprocess.Popen[str]] = []
    code = "import sys; from reason.cli.main import main; sys.exit(main())"

    def start(*arguments: str, stdin: str | None = None, **environment: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        started.append(child)
        if stdin is not None and child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # the command reads no more than it takes
                child.stdin.write(stdin)
                child.stdin.close()
            child.stdin = None
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
        child.wait()
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
