"""Fixtures that several folders of tests share."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from reason.core.errors import BackendUnavailable
from reason.core.settings import load_settings
from reason.serving.model_files.find import ModelFiles, find_model
from support.fake_clock import FakeClock, FakeClockLoop
from support.postgres_server import CannotStart, PostgresServer

if "PYTEST_XDIST_WORKER" in os.environ:  # threads of several workers would wait for one another at every operation
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background jobs ignore Ctrl-C, and so would all programs that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No example has a deadline: a busy machine is not a failure. `.ci/nightly` selects the second profile.
settings.register_profile("ci", deadline=None, max_examples=25)
settings.register_profile("nightly", deadline=None, max_examples=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_configure(config: pytest.Config) -> None:
    """Distribute files over workers in their order: by their numbers of tests, slow files of few tests come last."""
    config.option.loadscopereorder = False


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


@pytest.fixture
async def clock() -> AsyncIterator[FakeClock]:
    """The time of the test's event loop, which passes only when the test lets it (`support/fake_clock.py`)."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FakeClockLoop)
    with loop.held() as clock:
        yield clock


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
