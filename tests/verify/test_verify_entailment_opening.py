"""From strings to entailments."""

import subprocess
import sys

import pytest
from reason.core.errors import UnknownName, UserError
from reason.core.settings import Settings
from reason.verify.entailment import factory as opening
from reason.verify.entailment.factory import load_entailment
from reason.verify.entailment.judge import JudgeEntailment
from reason.verify.entailment.lexical import LexicalEntailment
from reason.verify.entailment.nli import NliEntailment
from reason.verify.entailment.windows import DocumentSupport
from support.scripted_entailment import ScriptedEncoder
from support.scripted_model import ScriptedModel, replies


async def test_what_needs_no_files(tmp_path):
    settings = Settings(cache_dir=tmp_path)
    assert isinstance(await load_entailment("lexical", settings), LexicalEntailment)
    model = ScriptedModel(replies("A"))
    judge = await load_entailment("judge", settings, model=model)
    assert isinstance(judge, JudgeEntailment)
    assert judge.name == "judge"
    await judge.aclose()
    assert not model.closed
    with pytest.raises(UserError, match="language model"):
        await load_entailment("judge", settings)


@pytest.mark.parametrize(("prefix", "kind"), [("nli/", NliEntailment), ("minicheck/", DocumentSupport)])
async def test_a_classifier_by_the_string_of_its_cross_encoder(monkeypatch, tmp_path, prefix, kind):
    encoder = ScriptedEncoder(("entailment", "not_entailment"), lambda a, b: {"entailment": 1, "not_entailment": 0})
    asked = []

    async def opened(name, settings, progress=None):
        asked.append((name, progress))
        return encoder

    def progress(*_):
        return None

    monkeypatch.setattr(opening, "load_cross_encoder", opened)
    name = f"{prefix}local/cross-encoder/nli-deberta-v3-base"
    found = await load_entailment(name, Settings(cache_dir=tmp_path), progress=progress)
    assert isinstance(found, kind)
    assert found.name == name
    assert asked == [("local/cross-encoder/nli-deberta-v3-base", progress)]
    await found.aclose()
    assert encoder.closed == 1
    encoder.labels = ("LABEL_0", "LABEL_1")
    with pytest.raises(Exception, match="LABEL_0"):
        await load_entailment(name, Settings(cache_dir=tmp_path))
    assert encoder.closed == 2  # what cannot be used is closed


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("lexicl", ("lexical",)),
        ("embeded", ("embedded",)),
        ("nil/local/x", ("nli/local/x",)),
        ("mini-check/local/x", ("minicheck/local/x",)),
        ("nli/", ("nli/",)),
        ("", ()),
        ("entirely else", ()),
    ],
)
async def test_unknown_names(tmp_path, name, near):
    with pytest.raises(UnknownName) as unknown:
        await load_entailment(name, Settings(cache_dir=tmp_path))
    assert unknown.value.nearest == near
    assert "minicheck/" in unknown.value.hint


async def test_an_unknown_cross_encoder_is_told_as_such(tmp_path):
    with pytest.raises(UnknownName, match="cross-encoder"):
        await load_entailment("nli/no-backend", Settings(cache_dir=tmp_path))


def test_importing_loads_nothing_heavy():
    modules = ["lexical", "nli", "windows", "judge", "metered", "factory"]
    imports = ", ".join(f"reason.verify.entailment.{m}" for m in modules)
    script = f"import sys\nimport {imports}, reason.verify.spans\n" + (
        "print([m for m in ('torch', 'transformers', 'faiss', 'litellm', 'vllm', 'sentence_transformers') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
