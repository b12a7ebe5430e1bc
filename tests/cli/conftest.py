"""Fixtures for tests of the command line: a separate home, a scripted model, a tiny real model, subprocesses."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from reason.cli.main import main
from reason.core.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.scripted_model import Script, ScriptedModel, replies
from support.tiny_llama import write_tiny_llama

Cli = Callable[..., tuple[int, str, str]]
ENGINE = {"REASON_LOCAL__THREADS": "1", "REASON_LOCAL__WEIGHT_FORMAT": "fp32"}
"""Settings of the embedded engine in subprocesses: batches that differ give the same text."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home without settings, runs and cached models; the working directory is another empty one."""
    for name in [n for n in os.environ if n.startswith("REASON_") or n in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")]:
        monkeypatch.delenv(name)
    for variable, directory in (("XDG_CONFIG_HOME", "config"), ("XDG_DATA_HOME", "data"), ("XDG_CACHE_HOME", "cache")):
        monkeypatch.setenv(variable, str(tmp_path / directory))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # `reason serve` installs one for the process
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return tmp_path


@pytest.fixture
def cli(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command in this process; returns exit status, standard output, standard error."""
    monkeypatch.setattr("reason.cli.render.status.FIRST_LINE_S", 3600.0)  # a busy machine prints no progress

    def run(*arguments: str, app: typer.Typer | None = None) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(arguments, app)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScriptedModel]:
    """Makes every model name open one scripted model, and returns it."""

    def install(script: Script | None = None, **options: Any) -> ScriptedModel:
        model = ScriptedModel(script or replies("The answer is 42."), **options)

        async def load_model(name: str, settings: Settings, *_progress: object) -> ScriptedModel:
            return model

        monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)
        return model

    return install


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a real, tiny Llama of random weights: 2 layers of width 64, a byte-level tokenizer."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_llama(directory)
    return directory


@pytest.fixture
def process(home: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command as a subprocess; kills subprocesses that are still running at the end."""
    started: list[subprocess.Popen[str]] = []
    code = "import sys; from reason.cli.main import main; sys.exit(main())"

    def start(
        *arguments: str, stdin: str | None = None, script: Path | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, *(("-c", code) if script is None else (str(script),)), *arguments],
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": "1", **ENGINE, **environment},
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
