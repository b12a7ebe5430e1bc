"""The hub through stand-ins for the packages: what is asked of them, and what becomes of their errors."""

import importlib
import re
import sys
import types

import pytest
from reason.core.errors import BackendUnavailable, DataError, UserError
from reason.core.extras import install_command
from reason.evals.datasets.loading import load_dataset

SHA = "a" * 40


class HubError(Exception):
    pass


@pytest.fixture
def hub(monkeypatch):
    """Stand-ins for `datasets` and `huggingface_hub`; what they were asked, and what they answer, is in the result."""
    state = types.SimpleNamespace(table=[], error=None, info_error=None, asked=[], offline="")
    errors = types.ModuleType("huggingface_hub.errors")
    for name in ("GatedRepoError", "RevisionNotFoundError", "RepositoryNotFoundError"):
        setattr(errors, name, type(name, (HubError,), {}))

    class HfApi:
        def dataset_info(self, repo, revision, timeout):
            state.asked.append(("info", repo, revision))
            assert 0 < timeout <= 30
            if state.info_error is not None:
                raise state.info_error
            return types.SimpleNamespace(sha=revision or SHA)

    def load(repo, config, split, revision):
        state.asked.append(("load", repo, config, split, revision))
        if state.error is not None:
            raise state.error
        return state.table

    package = types.ModuleType("datasets")
    package.load_dataset = load
    client = types.ModuleType("huggingface_hub")
    client.HfApi, client.errors = HfApi, errors
    monkeypatch.setitem(sys.modules, "datasets", package)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    state.errors = errors
    return state


def test_a_dataset_is_read_at_its_pinned_commit(hub):
    hub.table = [{"question": "2 + 2?", "answer": "It is #### 4"}]
    dataset = load_dataset("gsm8k")
    revision = "740312add88f781978c0658806c59bc2815b9866"
    assert hub.asked == [("info", "openai/gsm8k", revision), ("load", "openai/gsm8k", "main", "test", revision)]
    assert (dataset.source, dataset.revision) == (f"openai/gsm8k@{revision}", revision)
    assert dataset.items[0].gold.answer == "4"


def test_a_bad_row_of_the_hub_is_named(hub):
    hub.table = [{"question": "2 + 2?", "answer": "#### 4"}, {"question": None, "answer": "#### 4"}]
    with pytest.raises(DataError, match=r"openai/gsm8k@740312add88f test row 2: the field 'question' is missing"):
        load_dataset("gsm8k")


def test_aime_takes_each_year_from_one_source(hub):
    hub.table = [{"Year": 2023, "Problem Number": 1, "Question": "Q", "Answer": "5", "Part": "I"}]
    assert [i.id for i in load_dataset("aime:2023").items] == ["aime-2023-I-1"]
    hub.table = [{"problem": "Q", "answer": "70"}, {"problem": "R", "answer": "71"}]
    assert [i.id for i in load_dataset("aime:2026").items] == ["aime-2026-1", "aime-2026-2"]
    hub.table = [{"ID": "2024-II-4", "Problem": "Q", "Answer": 33}]
    assert [i.id for i in load_dataset("aime:2024").items] == ["aime-2024-II-4"]


@pytest.mark.parametrize(
    ("info", "kind", "message"),
    [
        ("GatedRepoError", UserError, "accept its terms"),
        ("RevisionNotFoundError", DataError, "no revision"),
        ("RepositoryNotFoundError", DataError, "there is no Idavidrein/gpqa"),
        (None, BackendUnavailable, "cannot be reached: no route"),
    ],
)
def test_errors_of_the_hub_have_hints(hub, info, kind, message):
    hub.info_error = getattr(hub.errors, info)("no") if info else OSError("no route")
    with pytest.raises(kind) as caught:
        load_dataset("gpqa")
    assert message in str(caught.value)
    assert "--data FILE" in str(caught.value)


def test_offline_only_the_cache_is_used(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.table = [{"question": "2 + 2?", "answer": "#### 4"}]
    assert load_dataset("gsm8k").size == 1
    assert [a[0] for a in hub.asked] == ["load"]
    hub.error = OSError("not there")
    with pytest.raises(BackendUnavailable, match="is not in the cache"):
        load_dataset("gsm8k")


def test_unreadable_files_are_reported(hub):
    hub.error = ValueError("Unknown\nsplit")
    with pytest.raises(DataError, match="ValueError: Unknown split"):
        load_dataset("gsm8k")


def test_without_the_package_the_extra_is_named(monkeypatch):
    real = importlib.import_module

    def import_module(name, *rest):
        if name == "datasets":
            raise ModuleNotFoundError("no", name="datasets")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(UserError, match=re.escape(install_command("eval"))):
        load_dataset("gsm8k")
