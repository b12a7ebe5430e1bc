"""Fixtures that several folders of tests share."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import is_hypothesis_test, settings
from reason.core.errors import BackendUnavailable
from reason.core.settings import load_settings
from reason.core.store.sqlite import SqliteStore
from reason.serving.model_files.find import ModelFiles, find_model
from support.fake_clock import FakeClock, FakeClockLoop
from support.postgres_server import CannotStart, PostgresServer

if "PYTEST_XDIST_WORKER" in os.environ:  # threads of several workers would wait for one another at every operation
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# `reason` sets it before it imports LiteLLM; tests that import LiteLLM first would wait for the network.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

# A shell's background jobs ignore Ctrl-C, and so would all programs that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No example has a deadline: a busy machine is not a failure. `.ci/nightly` selects the second profile.
settings.register_profile("ci", deadline=None, max_examples=25)
settings.register_profile("nightly", deadline=None, max_examples=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


TESTS = Path(__file__).parent
KERNEL = {"agents", "core", "reasoning", "reasoning/search", "serving"}
HEAVY = re.compile(
    r"subprocess|multiprocessing|smollm2|mark\.real|transformers|\btorch\b|gguf|[sS]erver\(|thinking_cells"
    r"|_process\b|lexical|scipy|megabyte|_reference|_against_|conformance"
)
"""In the name or the text of files that start processes or servers, load weights or large libraries, verify answers, or
compare implementations."""


@cache
def is_heavy(path: Path) -> bool:
    """Whether tests of the file may take seconds."""
    return bool(HEAVY.search(path.name + path.read_text(encoding="utf-8")))


def is_fast(path: Path) -> bool:
    """Whether `-m fast` runs the file's tests, but for properties and tests of Postgres."""
    return path.parent.relative_to(TESTS).as_posix() in KERNEL and not is_heavy(path)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import only files of which tests may be chosen."""
    if config.option.markexpr == "fast" and collection_path.name.startswith("test_") and not is_fast(collection_path):
        return True
    return None


class Reversed(pytest.Dir):
    """A directory collected from its end."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Files and directories in reverse order."""
        return reversed(list(super().collect()))


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect from both ends with two workers: in a fresh environment, each compiles half of what both import."""
    is_second = os.environ.get("PYTEST_XDIST_WORKER") == "gw1"
    return Reversed.from_parent(parent, path=path) if is_second and not (path / "__init__.py").exists() else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark what is fast, before `-m` chooses. Heavy files come first: no worker may begin one when the others end."""
    paths = {item.path for item in items}
    heavy, fast = {path for path in paths if is_heavy(path)}, {path for path in paths if is_fast(path)}
    for item in items:
        slow = item.get_closest_marker("nightly") or is_hypothesis_test(item.obj) or "postgres" in item.name
        if item.path in fast and not slow:
            item.add_marker("fast")
    items.sort(key=lambda item: (item.path not in heavy, item.path))


def pytest_configure(config: pytest.Config) -> None:
    """Distribute files over workers in their order, not by their numbers of tests."""
    config.option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute files, those of clusters to one worker: a machine has one cluster at a time."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "clusters" if nodeid.startswith("tests/cluster/") else super()._split_scope(nodeid)

    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import the tests and what they use without looking for garbage, neither now nor among all that later: it is a
    gigabyte, and each look takes seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run asynchronous tests on a loop whose time the fixture `clock` can hold."""
    return {"fake-clock": FakeClockLoop}


@pytest.fixture(autouse=True)
def data_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, request: Any) -> None:
    """What is learnt of servers and models is remembered for one test; the directory is made when it is written."""
    digest = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / "data" / digest))


@pytest.fixture
async def clock() -> AsyncIterator[FakeClock]:
    """The time of the test's event loop, which passes only when the test lets it (`support/fake_clock.py`)."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FakeClockLoop)
    with loop.held() as clock:
        yield clock


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A run store of one test."""
    opened = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield opened
    await opened.aclose()


@pytest.fixture
def runs(store: SqliteStore) -> Any:
    """Runs on the store of the test."""
    from support.stored_runs import RunHarness

    return RunHarness(store)


@pytest.fixture
def inspect_logging() -> Iterator[None]:
    """Take back the logging that Inspect sets up for the process: its file goes with the directory of the test."""
    yield
    for logger in (logging.getLogger(), logging.getLogger("inspect_ai")):
        for handler in [one for one in logger.handlers if type(one).__module__.startswith("inspect_ai.")]:
            logger.removeHandler(handler)


@pytest.fixture(scope="session")
def smollm2_files() -> ModelFiles:
    """The default model in the user's own cache, pulled at the first use; tests are skipped where it cannot be had."""
    return _pulled("local/smollm2-135m")


@pytest.fixture(scope="session")
def gemma3_files() -> ModelFiles:
    """Gemma 3 270M, likewise."""
    return _pulled("local/gemma3-270m")


def _pulled(name: str) -> ModelFiles:
    cache_dir: Path = load_settings().cache_dir
    try:
        return find_model(name, cache_dir=cache_dir)
    except BackendUnavailable as e:
        pytest.skip(f"{name} cannot be had: {e}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A Postgres server; tests are skipped where none can be started."""
    try:
        server = PostgresServer()
    except CannotStart as e:
        pytest.skip(f"no Postgres: {e}")
    yield server
    server.remove()
