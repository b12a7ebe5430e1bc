"""`run_tests`: runs code against tests in a process that can reach neither files, network, other processes nor secrets.

`run_command` runs a shell command that can change one directory. The isolation is Linux namespaces. Without them
nothing is run: there is no mode without isolation. docs/code.md says what it defends and what not.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import sys
import sysconfig
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from ...core.concurrency import shielded
from ...core.errors import ReasonError, SandboxUnavailable
from ...core.messages import Frozen
from ...core.types import CodeTest

Outcome = Literal["passed", "failed", "code_error", "time", "memory", "output", "ended", "not_run"]

MIN_KERNEL: Final = (5, 14)
"""The first Linux that counts the processes of a user namespace by themselves."""
MACHINES: Final = ("x86_64", "aarch64")
"""Processors whose system calls `worker` knows by number."""
_WORKER: Final = Path(__file__).with_name("worker.py")
_PYTHON: Final = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
_LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_SYSTEM: Final = (
    "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/usr", "/opt", "/etc/alternatives", "/etc/ssl"
)  # fmt: skip
"""Directories that commands see. The rest of /etc, and homes, may have secrets."""
_GRACE_S: Final = 10.0
_MAX_LINE: Final = 1 << 20
_SLOTS = threading.BoundedSemaphore(os.cpu_count() or 1)
"""Sandboxes at once: tests have little time, which others must not take from them."""
_REMEDY: Final = (
    "it needs Linux 5.14 with unprivileged user namespaces (sysctl user.max_user_namespaces, "
    "kernel.apparmor_restrict_unprivileged_userns; in Docker a seccomp profile that allows unshare and mount); see "
    "docs/code.md"
)


class SandboxLimits(Frozen):
    """Limits of one test, and of all tests of an answer.

    Attributes:
        cpu_seconds: Processor time of a test.
        wall_seconds: Time of a test.
        total_seconds: Time of all tests together; those it does not reach are "not_run".
        memory_bytes: Address space of a test's process.
        directory_bytes: Files in the temporary directory, together.
        output_bytes: What a test may print.
        shown_bytes: Output of a test that is reported, from its end.
        threads: Threads of a test's process, which can start no other process.
    """

    cpu_seconds: Annotated[int, Field(ge=1)] = 5
    wall_seconds: Annotated[float, Field(gt=0)] = 10.0
    total_seconds: Annotated[float, Field(gt=0)] = 60.0
    memory_bytes: Annotated[int, Field(ge=1 << 26)] = 1 << 29
    directory_bytes: Annotated[int, Field(ge=1 << 12)] = 1 << 26
    output_bytes: Annotated[int, Field(ge=1)] = 1 << 20
    shown_bytes: Annotated[int, Field(ge=1, le=100_000)] = 2_000
    threads: Annotated[int, Field(ge=1)] = 32


class TestResult(Frozen):
    """What one test showed.

    Attributes:
        name: The test.
        outcome: "passed"; "failed" (an assertion, an exception, an example with another result); "code_error" (the
            code failed before the test began); a limit: "time", "memory", "output"; "ended" (the process ended before
            the test did); "not_run".
        detail: Why it did not pass: the traceback, the values compared, the limit.
        output: The end of what it printed.
    """

    __test__ = False  # pytest takes classes of this name for tests

    name: str
    outcome: Outcome
    detail: str = ""
    output: str = ""

    @property
    def passed(self) -> bool:
        """Whether it ran to its end without a failure."""
        return self.outcome == "passed"


async def run_tests(
    code: Sequence[str], tests: Sequence[CodeTest], limits: SandboxLimits | None = None
) -> tuple[TestResult, ...]:
    """Run Python code against tests, each in a process of its own that runs the code first.

    Args:
        code: Sources that are run one after the other in one namespace; the last is the answer's.
        tests: A test is source that fails by an exception, or examples as in a docstring (`>>> …`).

    Returns:
        A result for each test, in order.

    Raises:
        SandboxUnavailable: No isolation can be had here.
    """
    await require_sandbox()
    return await _run(code, tests, limits or SandboxLimits())


_is_tried = False


async def require_sandbox() -> None:
    """Try the isolation of this machine once, by running nothing in it.

    Raises:
        SandboxUnavailable: There is none.
    """
    global _is_tried
    if not _is_tried:
        _refuse_other_systems()
        try:
            await _run(["pass"], [CodeTest(name="nothing", code="pass")], SandboxLimits())
        except SandboxUnavailable as e:
            raise SandboxUnavailable(f"code cannot be run in isolation here: {e.message}", hint=_REMEDY) from e
        _is_tried = True


def _refuse_other_systems() -> None:
    system, machine, release = platform.system(), platform.machine(), platform.release()
    version = tuple(int(part) for part in release.replace("-", ".").split(".")[:2] if part.isdigit())
    if system != "Linux" or machine not in MACHINES or version < MIN_KERNEL:
        raise SandboxUnavailable(f"code cannot be run in isolation on {system} {release} {machine}", hint=_REMEDY)


async def _run(code: Sequence[str], tests: Sequence[CodeTest], limits: SandboxLimits) -> tuple[TestResult, ...]:
    directories, links = _library_paths()
    request = {
        "code": list(code),
        "tests": [test.model_dump() for test in tests],
        "limits": limits.model_dump(),
        "read_only": directories,
        "links": links,
    }
    while not _SLOTS.acquire(blocking=False):  # noqa: ASYNC110 (the holder may be on another loop)
        await asyncio.sleep(0.01)
    try:
        lines = await _communicate(request, len(tests), limits)
    finally:
        _SLOTS.release()
    return tuple(
        TestResult(name=test.name, outcome=line["outcome"], detail=line["detail"], output=line.get("output", ""))
        for test, line in zip(tests, lines, strict=True)
    )


class CommandResult(Frozen):
    """What a shell command did.

    Attributes:
        outcome: "ended"; "time" or "output", the limit at which it was killed.
        status: Its exit status; -N if signal N ended it.
        output: The end of what it printed to standard output and standard error.
    """

    outcome: Literal["ended", "time", "output"]
    status: int
    output: str


async def run_command(
    command: str, directory: Path, limits: SandboxLimits, *, shown_as: Path | None = None
) -> CommandResult:
    """Run a shell command that can change one directory, and sees nothing else but the system's programs, read-only.

    It has no network and no capabilities, and sees no process of others. Of the limits, `wall_seconds`, the output's,
    and `directory_bytes`, for `/tmp`, apply: its memory and what it writes to the directory are not limited. Cancelling
    kills it and everything that it started.

    Args:
        shown_as: Path of the directory for the command; by default its own.

    Raises:
        SandboxUnavailable: No isolation can be had here.
    """
    await require_sandbox()
    (line,) = await _communicate(_command_request(command, directory, limits, shown_as or directory), 1, limits)
    return CommandResult.model_validate(line)


def _command_request(command: str, directory: Path, limits: SandboxLimits, shown_as: Path) -> dict[str, Any]:
    links = {path: os.readlink(path) for path in _SYSTEM if os.path.islink(path)}
    return {
        "command": command,
        "directory": os.path.realpath(directory),
        "shown_as": os.path.realpath(shown_as),
        "environment": {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"},  # noqa: S108
        "limits": limits.model_dump(),
        "read_only": [path for path in _SYSTEM if os.path.isdir(path) and path not in links],
        "links": links,
    }


async def _communicate(request: dict[str, Any], count: int, limits: SandboxLimits) -> list[dict[str, Any]]:
    """Start a worker, send it the request, and read a line for each test; the worker has ended afterwards."""
    pipe = asyncio.subprocess.PIPE
    command = [_PYTHON, "-I", "-S", "-X", "utf8", str(_WORKER)]
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, stderr=pipe, env={}, cwd="/", start_new_session=True, limit=_MAX_LINE
        )  # fmt: skip
    except OSError as e:
        raise SandboxUnavailable(f"{command[0]} cannot be started: {e.strerror}", hint=_REMEDY) from e
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(limits.total_seconds + _GRACE_S):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            with suppress(ConnectionError):  # it has ended: its last line says why
                await process.stdin.drain()
            while len(lines) < count and (line := await process.stdout.readline()):
                lines.append(json.loads(line))
                if "unavailable" in lines[-1]:
                    raise SandboxUnavailable(str(lines[-1]["unavailable"]), hint=_REMEDY)
            if len(lines) < count:
                message = (await process.stderr.read(_MAX_LINE)).decode("utf-8", "replace").strip()
                said = message.splitlines()[-1] if message else "it said nothing"
                raise ReasonError(f"the sandbox ended after {len(lines)} of {count} results: {said}")
    except TimeoutError:
        raise ReasonError(f"the sandbox did not end within {limits.total_seconds + _GRACE_S:g} s") from None
    finally:
        await shielded(_end(process))
    return lines


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of a worker: with its process 1 all processes of its namespace end."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.stdin is not None:
        process.stdin.close()
    await process.wait()


def _library_paths() -> tuple[list[str], dict[str, str]]:
    """Directories that Python needs, without those inside another; and symbolic links that lead to them."""
    links = {path: os.readlink(path) for path in _LIBRARIES if os.path.islink(path)}
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}  # without the packages of a virtual environment
    wanted = {os.path.realpath(sysconfig.get_path(name, vars=base)) for name in ("stdlib", "platstdlib")}
    wanted |= {os.path.realpath(path) for path in (*_LIBRARIES, os.path.join(sys.base_prefix, "lib"))}
    kept: list[str] = []
    for path in sorted(wanted):
        if os.path.isdir(path) and not any(path.startswith(f"{other}/") for other in kept):
            kept.append(path)
    return kept, links
