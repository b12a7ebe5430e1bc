"""Real attacks on the sandbox. Each test runs hostile code in it; skipped only where the kernel gives no isolation."""

import asyncio
import os
import signal
import sys

import pytest
from reason.core.errors import SandboxUnavailable
from reason.core.types import CodeTest
from reason.reasoning.execution import sandbox
from reason.reasoning.execution.sandbox import SandboxLimits, run_tests
from support.waiting import wait_until

LIMITS = SandboxLimits(
    cpu_seconds=1, wall_seconds=4, memory_bytes=1 << 28, directory_bytes=1 << 20, output_bytes=10_000
)


@pytest.fixture(autouse=True)
async def isolation():
    try:
        return await sandbox.require_sandbox()
    except SandboxUnavailable as e:
        pytest.skip(str(e))


async def run_all(*tests, codes=("",), limits=LIMITS):
    """The results of tests, each named by its number."""
    return await run_tests(list(codes), [CodeTest(name=f"{i}", code=test) for i, test in enumerate(tests)], limits)


async def run(test, code="", limits=LIMITS):
    (result,) = await run_all(test, codes=[code], limits=limits)
    return result


def children():
    """Processes on this machine that run the sandbox's worker."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if b"execution/worker.py" in file.read():
                    found.append(int(pid))
        except OSError:
            continue
    return found


async def test_each_test_sees_the_code_and_nothing_of_the_test_before():
    results = await run_all(
        "seen.append(1); open('/tmp/left', 'w').close()\nassert round(area(1), 2) == 3.14",
        "import os\nassert seen == [] and os.listdir('/tmp') == []",
        ">>> round(area(2), 2)\n12.57\n",
        codes=["from math import pi", "seen = []\ndef area(r):\n    return pi * r * r"],
    )
    assert [(r.name, r.outcome) for r in results] == [("0", "passed"), ("1", "passed"), ("2", "passed")]


async def test_a_failed_assertion_shows_both_values_and_what_was_printed():
    result = await run("print('called')\nassert add(2, 2) == 5", "def add(a, b):\n    return a + b")
    assert (result.outcome, result.output) == ("failed", "called\n")
    assert result.detail.startswith("AssertionError: 4 == 5 is false\n")
    result = await run(">>> 1 + 1\n3\n")
    assert result.outcome == "failed"
    assert "Expected:\n    3\nGot:\n    2" in result.detail


async def test_code_that_cannot_be_loaded_is_told_from_a_failed_test():
    assert (await run("pass", "def f(:")).outcome == "code_error"
    result = await run("pass", "1 / 0")
    assert result.outcome == "code_error"
    assert result.detail.startswith("ZeroDivisionError")


async def test_an_endless_loop_ends_at_the_processor_time():
    result = await run("while True: pass", limits=LIMITS.model_copy(update={"wall_seconds": 60}))
    assert (result.outcome, result.detail) == ("time", "it used more than 1 s of processor time")


@pytest.mark.nightly
async def test_a_handler_of_the_time_signal_does_not_prolong_it():
    result = await run("import signal\nsignal.signal(signal.SIGXCPU, lambda *_: None)\nwhile True: pass")
    assert result.outcome == "time"


async def test_sleeping_ends_at_the_wall_clock_time():
    result = await run("import time; time.sleep(60)", limits=LIMITS.model_copy(update={"wall_seconds": 0.3}))
    assert (result.outcome, result.detail) == ("time", "it did not end within 0.3 s")


async def test_tests_that_the_total_time_does_not_reach_are_not_run():
    limits = LIMITS.model_copy(update={"total_seconds": 0.4})
    results = await run_all("import time; time.sleep(60)", "pass", limits=limits)
    assert [r.outcome for r in results] == ["time", "not_run"]


async def test_memory_is_bounded():
    assert (await run("x = bytearray(1 << 30)")).outcome == "memory"
    assert (await run("x = []\nwhile True: x.append('a' * 10_000_000)")).outcome == "memory"


async def test_files_are_bounded_in_size_and_number():
    result = await run("open('/tmp/big', 'wb').write(bytes(2 << 20))")
    assert result.outcome == "failed"
    assert result.detail.startswith("OSError")
    many = "for i in range(100):\n    open(f'/tmp/{i}', 'wb').write(bytes(100_000))"
    assert "No space left on device" in (await run(many)).detail
    assert not (await run("for i in range(50_000): open(f'/tmp/{i}', 'w').close()")).passed


async def test_memory_outside_the_address_space_cannot_be_had():
    for source in (
        "import os; os.memfd_create('x')",
        "import ctypes; assert ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600) >= 0",
    ):
        assert (await run(source)).outcome == "failed"


async def test_output_is_bounded():
    result = await run("while True: print('x' * 1000)")
    assert (result.outcome, len(result.output)) == ("output", 2000)


async def test_no_process_can_be_started():
    bomb = "import os\nwhile True: os.fork()"
    for source in (
        bomb,
        "import subprocess; subprocess.run(['/bin/sleep', '60'])",
        "import os; os.execv('/bin/sh', ['sh'])",
        "import os; os.posix_spawn('/bin/sh', ['sh'], {})",
        "import multiprocessing as m; m.get_context('fork').Process(target=print).start()",
        "import ctypes; assert ctypes.CDLL(None).vfork() >= 0",
    ):
        result = await run(source)
        assert result.outcome == "failed", source
        assert "not permitted" in result.detail or "AssertionError" in result.detail
    await wait_until(lambda: not children())


async def test_threads_work_and_are_bounded_and_leave_nothing():
    assert (await run("import threading as t\nx = t.Thread(target=print)\nx.start()\nx.join()")).passed
    many = (
        "import threading, time\nthreading.stack_size(65536)\n"
        "for _ in range(200): threading.Thread(target=time.sleep, args=(60,)).start()"
    )
    result = await run(many)
    assert "can't start new thread" in result.detail
    # a thread that outlives its test is no reason to wait
    assert (await run("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()")).passed
    await wait_until(lambda: not children())


async def test_nothing_outside_can_be_written(tmp_path):
    target = tmp_path / "file"
    target.write_text("mine")
    for path in (str(target), "/etc/passwd", "/usr/lib/x", "/x", "/dev/x"):
        assert (await run(f"open({path!r}, 'w')")).outcome == "failed", path
    assert (await run(f"import os; os.symlink({str(target)!r}, '/tmp/l'); open('/tmp/l', 'a').write('x')")).outcome == (
        "failed"
    )
    assert target.read_text() == "mine"


async def test_no_file_or_secret_of_the_parent_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    secret = tmp_path / "secret"
    secret.write_text("sk-secret")
    opened = os.open(secret, os.O_RDONLY)
    os.set_inheritable(opened, True)
    try:
        result = await run(
            f"""
import gc, os
assert "OPENAI_API_KEY" not in os.environ
for path in ({str(secret)!r}, "/proc/1/environ", "/proc/self/environ", f"/proc/{os.getpid()}/environ"):
    assert not os.path.exists(path), path
for fd in range(3, 1024):
    try:
        assert b"sk-secret" not in os.pread(fd, 100, 0)
    except OSError:
        pass
parts = ("sk", "secret")
assert not [x for x in gc.get_objects() if isinstance(x, dict) and "-".join(parts) in map(str, x.values())]
assert not os.path.exists("/etc"), os.listdir("/")
assert os.uname().nodename == "sandbox"
assert os.getuid() != 0
"""
        )
    finally:
        os.close(opened)
    assert result.passed, result.detail


async def test_symbolic_links_and_directories_do_not_lead_out():
    result = await run(
        "import os\nos.symlink('/', '/tmp/root')\nd = os.open('/tmp/root', os.O_RDONLY)\n"
        "up = os.open('../../../../..', os.O_RDONLY, dir_fd=d)\nassert os.listdir(up) == os.listdir('/')\n"
        "assert not os.path.exists('/tmp/root/etc')"
    )
    assert result.passed, result.detail
    assert (await run("import os; os.chroot('/tmp')")).outcome == "failed"


async def test_there_is_no_network():
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for source in (
        f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=1)",
        "import socket; socket.create_connection(('1.1.1.1', 80), timeout=1)",
        "import socket; socket.socket(socket.AF_UNIX)",
        "import socket; socket.socket(40)",  # AF_VSOCK, which has no namespace
        "import urllib.request; urllib.request.urlopen('http://example.org', timeout=1)",
    ):
        assert (await run(source)).outcome == "failed", source
    server.close()
    assert (await run("import asyncio; asyncio.run(asyncio.sleep(0))")).passed


async def test_neither_the_parent_nor_the_supervisor_can_be_killed():
    ours = os.getpid()
    results = await run_all(
        f"import os; os.kill({ours}, 9)",
        "import os\nfor s in (9, 15, 2, 19, 11): os.kill(1, s)",  # the supervisor
        "import os\ntry: os.kill(-1, 9)\nexcept ProcessLookupError: pass",  # all
        "open('/proc/1/mem', 'rb')",  # the memory of the supervisor
        "pass",
    )
    assert [r.outcome for r in results] == ["failed", "passed", "passed", "failed", "passed"]


async def test_the_kernel_is_asked_for_nothing_that_code_does_not_need():
    for name, arguments in (
        ("ptrace", "16, 1, 0, 0"),
        ("unshare", "0x10000000"),
        ("mount", "b'x', b'/tmp', b'tmpfs', 0, None"),
        ("setns", "0, 0"),
    ):
        source = f"import ctypes\nc = ctypes.CDLL(None, use_errno=True)\nassert c.{name}({arguments}) == -1\n"
        assert (await run(source + "assert ctypes.get_errno() == 1, ctypes.get_errno()")).passed, name


@pytest.mark.parametrize(
    "source",
    [
        'print(\'passed\'); print(\'{"index": 0, "outcome": "passed"}\', flush=True)',
        'import os; [os.write(fd, b\'{"outcome": "passed", "detail": ""}\') for fd in (1, 2, 3)]',
        "pass",
    ],
)
@pytest.mark.parametrize("end", ["import os; os._exit(0)", "import sys; sys.exit(0)", "raise SystemExit"])
async def test_a_forged_report_and_an_early_end_are_no_pass(source, end):
    result = await run("assert False", f"{source}\n{end}")
    assert result.outcome == "ended"


async def test_a_crash_of_the_interpreter_fails_the_test_alone():
    results = await run_all("import ctypes; ctypes.string_at(0)", "pass")
    assert [r.outcome for r in results] == ["ended", "passed"]
    assert "SIGSEGV" in results[0].detail


async def test_cancelling_ends_every_process():
    task = asyncio.create_task(run("import time; time.sleep(60)", limits=SandboxLimits(wall_seconds=60)))
    await wait_until(children)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_until(lambda: not children())


async def test_when_the_parent_is_killed_every_process_ends():
    source = (
        "import asyncio\nfrom reason.core.types import CodeTest\n"
        "from reason.reasoning.execution.sandbox import SandboxLimits, run_tests\n"
        "test = CodeTest(name='t', code='import time; time.sleep(60)')\n"
        "asyncio.run(run_tests([''], [test], SandboxLimits(wall_seconds=60)))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", source)
    await wait_until(lambda: len(children()) >= 3)  # launcher, supervisor, child
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await wait_until(lambda: not children())


async def test_without_isolation_nothing_runs(monkeypatch):
    monkeypatch.setattr(sandbox, "_is_tried", False)
    monkeypatch.setattr(sandbox.platform, "system", lambda: "Darwin")
    with pytest.raises(SandboxUnavailable, match="on Darwin"):
        await run("pass")


async def test_a_refusing_kernel_is_named(monkeypatch):
    monkeypatch.setattr(sandbox, "_is_tried", False)
    monkeypatch.setattr(sandbox, "_library_paths", lambda: (["/no/such/directory"], {}))
    with pytest.raises(SandboxUnavailable, match="cannot be run in isolation here: .*No such file or directory"):
        await run("pass")
