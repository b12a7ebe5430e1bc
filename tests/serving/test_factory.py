"""Opening a model by its string: the right backend, errors before any loading, and cancelling."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest
from reason.core.errors import DataError, UnknownName, UserError
from reason.core.extras import install_command
from reason.core.messages import Prompt, Request, SamplingParams
from reason.core.settings import LocalSettings, Settings
from reason.serving import in_process
from reason.serving.factory import load_model


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(
        cache_dir=tmp_path / "cache", local=LocalSettings(threads=1, max_num_seqs=2, kv_cache_bytes=1 << 24)
    )


async def test_gguf_file_is_converted_and_generates(tiny_gguf, settings):
    name = f"local/{tiny_gguf}"
    model = await load_model(name, settings)
    try:
        assert model.name == name
        assert model._scheduler._max_rows == 2
        request = Request(prompt=Prompt.user("the"), sampling=SamplingParams(max_tokens=5, seed=1, ignore_eos=True))
        [[completion]] = await model.generate([request])
        assert len(completion.token_ids) == 5
    finally:
        await model.aclose()


@pytest.mark.parametrize(("name", "missing"), [("openai/gpt-4o", "OPENAI_API_KEY"), ("hosted_vllm/x", "api_base")])
async def test_other_names_are_providers(name, missing, settings, monkeypatch):
    for variable in ("OPENAI_API_KEY", "HOSTED_VLLM_API_BASE"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match=missing) as caught:
        await load_model(name, settings)
    assert name in caught.value.message


@pytest.mark.parametrize("name", ["smollm2-135m", "smolm2", "local/smollm2-135"])
async def test_the_nearest_name_is_suggested(name, settings):
    with pytest.raises(UnknownName, match="did you mean 'local/smollm2-135m'"):
        await load_model(name, settings)


async def test_a_damaged_file(tmp_path, tiny_gguf, settings):
    (tmp_path / "cut.gguf").write_bytes(tiny_gguf.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"cut\.gguf"):
        await load_model(f"local/{tmp_path / 'cut.gguf'}", settings)


@pytest.mark.parametrize("package", ["gguf", "torch"])
async def test_a_missing_extra_is_named_with_the_command_that_installs_it(package, tiny_gguf, tmp_path):
    # In a process of its own: packages that are loaded already cannot go missing.
    program = (
        "import sys, asyncio, pathlib\n"
        f"sys.modules[{package!r}] = None\n"
        "from reason.core.settings import Settings\n"
        "from reason.core.errors import UserError\n"
        "from reason.serving.factory import load_model\n"
        "try:\n"
        f"    asyncio.run(load_model({'local/' + str(tiny_gguf)!r}, "
        f"Settings(cache_dir=pathlib.Path({str(tmp_path / 'cache')!r}))))\n"
        "except UserError as e:\n"
        "    sys.stdout.write(str(e))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"{package!r}" in done.stdout, done.stderr
    assert install_command("local") in done.stdout


async def test_cancelling_stops_the_conversion_and_waits_for_it(tiny_gguf, settings):
    at_work, go_on = threading.Event(), threading.Event()

    def progress(stage: str, _done: int, _total: int | None) -> None:
        if stage == "converting":
            at_work.set()
            go_on.wait(20)

    task = asyncio.create_task(load_model(f"local/{tiny_gguf}", settings, progress))
    await asyncio.to_thread(at_work.wait, 20)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [p.name for p in (settings.cache_dir / "models").iterdir()] == [".locks"]


async def test_a_model_that_was_loaded_after_the_cancellation_is_closed(settings, monkeypatch):
    loading, loaded = threading.Event(), threading.Event()
    closed = []

    class Loaded:
        async def aclose(self) -> None:
            closed.append(self)

    def load(*_):
        loading.set()
        loaded.wait(20)
        return Loaded()

    monkeypatch.setattr(in_process, "_load_local", load)
    task = asyncio.create_task(load_model("local/smollm2-135m", settings))
    await asyncio.to_thread(loading.wait, 20)
    task.cancel()
    await asyncio.sleep(0)
    loaded.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(closed) == 1


def test_finding_models_loads_no_engine():
    program = (
        "import sys, reason.serving.factory, reason.serving.model_files.find, reason.cli.models\n"
        "heavy = {'torch', 'transformers', 'numpy', 'gguf', 'huggingface_hub', 'httpx'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
