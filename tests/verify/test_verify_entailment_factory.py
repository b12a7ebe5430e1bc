"""From strings to entailments."""

import asyncio

import pytest
from reason.core.errors import DataError, UnknownName, UserError
from reason.core.settings import Settings
from reason.verify.entailment import factory
from reason.verify.entailment.factory import find_embedded, load_entailment, resolve_judge
from reason.verify.entailment.lexical import LexicalEntailment
from support.scripted_entailment import ScriptedEncoder, ScriptedEntailment


async def test_what_needs_no_files(tmp_path):
    settings = Settings(cache_dir=tmp_path)
    assert isinstance(await load_entailment("lexical", settings), LexicalEntailment)
    with pytest.raises(UserError, match="needs a judge model") as unnamed:
        await load_entailment("model", settings)
    assert "--judge-model" in unnamed.value.hint


@pytest.fixture
def embedded(monkeypatch):
    """Embedded judges that are here or not, without their files; the sizes that are loaded are kept."""
    here, loaded = set(), []

    async def load_embedded(settings, progress=None, *, size="small", file=None):
        loaded.append(size)
        return ScriptedEntailment(lambda pair: None, name=size)

    module = "reason.verify.entailment.embedded"
    monkeypatch.setattr(f"{module}.load_embedded", load_embedded)
    monkeypatch.setattr(
        "reason.serving.encoders.files.has_encoder",
        lambda name, cache_dir: ("base" if "mpnet" in name else "small") in here,
    )
    return here, loaded


@pytest.mark.parametrize(
    ("here", "named", "resolved"),
    [
        (set(), False, "small"),
        ({"small"}, False, "small"),
        ({"small", "base"}, False, "base"),
        ({"base"}, False, "base"),
        ({"small", "base"}, True, "model"),
        (set(), True, "model"),
    ],
)
async def test_auto_is_the_named_model_or_the_better_embedded_judge_here(embedded, tmp_path, here, named, resolved):
    on_this_machine, loaded = embedded
    on_this_machine |= here
    settings = Settings(cache_dir=tmp_path)
    assert resolve_judge("auto", settings, has_judge_model=named) == resolved
    if not named:
        assert (await load_entailment("auto", settings)).name == resolved
        assert loaded == [resolved]
    assert find_embedded(settings) == ("base" if "base" in here else "small" if here else None)


def test_a_named_judge_stays_whatever_is_here(embedded, tmp_path):
    assert resolve_judge("small", Settings(cache_dir=tmp_path), has_judge_model=True) == "small"


async def test_a_classifier_by_hub_id_or_directory(monkeypatch, tmp_path):
    labels = ("entailment", "not_entailment")
    encoder = ScriptedEncoder(labels, lambda a, b: dict.fromkeys(labels, 0.0))
    loaded = []

    async def load(name, settings, progress=None):
        loaded.append((name, progress))
        return encoder

    def progress(*_):
        return None

    monkeypatch.setattr(factory, "load_cross_encoder", load)
    settings = Settings(cache_dir=tmp_path)
    for rest in ("cross-encoder/nli-deberta-v3-base", "/models/mine", "./mine"):
        judge = await load_entailment(f"nli/{rest}", settings, progress=progress)
        assert judge.identity.startswith("nli-")
        assert judge.name == f"nli/{rest}"
        assert loaded.pop() == (f"local/{rest}", progress)
        await judge.aclose()
    assert encoder.closed == 3
    encoder.labels = ("LABEL_0", "LABEL_1", "LABEL_2")
    with pytest.raises(DataError, match="LABEL_0"):
        await load_entailment("nli/a/b", settings)
    assert encoder.closed == 4  # what cannot be used is closed


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("lexicl", ("lexical",)),
        ("nil/x/y", ("nli/x/y",)),
        ("nli/", ("nli/",)),
        ("", ()),
        ("entirely else", ()),
    ],
)
async def test_unknown_names(tmp_path, name, near):
    settings = Settings(cache_dir=tmp_path)
    for attempt in (
        lambda: resolve_judge(name, settings, has_judge_model=False),
        lambda: asyncio.run(load_entailment(name, settings)),
    ):
        with pytest.raises(UnknownName, match="unknown judge") as unknown:
            await asyncio.to_thread(attempt)
        assert unknown.value.nearest == near
        assert "nli/…" in unknown.value.hint


async def test_an_unknown_model_is_named(tmp_path):
    with pytest.raises(UnknownName, match="no-such-model"):
        await load_entailment("nli/no-such-model", Settings(cache_dir=tmp_path))
    with pytest.raises(DataError, match="no such model directory"):
        await load_entailment(f"nli/{tmp_path}/missing", Settings(cache_dir=tmp_path))
