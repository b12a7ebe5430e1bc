"""The process that runs code in the sandbox: it isolates itself, then runs each test in a child of its own.

Run as a script by `sandbox.run_tests`, never imported by it, with the standard library only. It reads one request (a
line of JSON) from its input and writes a line of JSON for each test.

    launcher    new user, mount, PID, network, IPC, UTS and cgroup namespaces; an empty root in memory with the Python
                library read-only and a temporary directory; no capabilities
    supervisor  process 1 of the PID namespace: starts the children, enforces time and output, reports. Signals from
                inside do not reach it, and with it every process of the namespace ends
    child       one for each test: resource limits and a seccomp filter, then the code, then the test

A child reports success with a token that is made for it alone, on a pipe of its own. What it prints, how it exits and
whom it kills is no report. A child can still find the token: code and test share an interpreter.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import errno
import json
import linecache
import os
import resource
import select
import shutil
import signal
import struct
import sys
import time
import traceback
from typing import Any, NoReturn

NOBODY = 65534
MAX_DETAIL_CHARS = 4_000
"""Maximum length of a traceback."""
MAX_FILES = 1_000
"""Files in the temporary directory."""
_TICK_MS = 50
_REPORT_FD = 3
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")

# linux/sched.h, sys/mount.h, linux/prctl.h, linux/seccomp.h, linux/capability.h
_NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x02000000
_CLONE_THREAD = 0x00010000
_NOSUID, _NODEV, _NOEXEC, _BIND, _REC, _PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x40000
_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 0x1, 0x2, 0x4
_PDEATHSIG, _DUMPABLE, _CAPBSET_DROP, _NO_NEW_PRIVS, _SECCOMP = 1, 4, 24, 38, 22
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Read the request, isolate this process, and run the tests."""
    request = json.loads(sys.stdin.buffer.readline())
    import doctest  # noqa: F401 (loaded once, before the children)

    is_command = "command" in request
    try:
        _isolate(request)
        _drop_privileges(keeps_user=is_command)
        pid = os.fork()
        if pid:
            _, status = os.waitpid(pid, 0)
            os._exit(0 if status == 0 else 1)
        _prctl(_PDEATHSIG, signal.SIGKILL)
        _prctl(_DUMPABLE, 0)
        # without a handler, process 1 cannot be signalled from inside its namespace
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if os.getpid() != 1:
            raise OSError(errno.EPERM, "the supervisor is not process 1 of its PID namespace")
    except OSError as e:
        _emit({"unavailable": e.strerror or str(e)})
        os._exit(1)
    _run_command(request) if is_command else _supervise(request)
    os._exit(0)


# -- isolation


def _isolate(request: dict[str, Any]) -> None:
    """Enter new namespaces with an empty root, the given directories in it read-only."""
    is_root = os.geteuid() == 0
    _unshare_as_root() if is_root else _unshare_as_user()
    _call("sethostname", b"sandbox", 7)
    _call("mount", None, b"/", None, _REC | _PRIVATE, None)
    writable = request.get("directory")
    directory = None if writable is None else os.open(writable, os.O_PATH | os.O_DIRECTORY)  # it may be below /tmp
    _call("mount", b"tmpfs", b"/tmp", b"tmpfs", _NOSUID | _NODEV, b"size=1m,nr_inodes=1k,mode=755")
    os.chdir("/tmp")  # noqa: S108
    for path in (*request["read_only"], *_DEVICES):
        target = f".{path}"
        if path in _DEVICES:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
        else:
            os.makedirs(target, exist_ok=True)
        _call("mount", path.encode(), target.encode(), None, _BIND | _REC, None)
        if path not in _DEVICES:
            _set_attributes(target, _AT_RECURSIVE, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV)
    os.makedirs("./tmp", exist_ok=True)
    for link, target in request["links"].items():
        os.symlink(target, f".{link}")
    keeps_user = not is_root or "command" in request
    user, group = (os.geteuid(), os.getegid()) if keeps_user else (NOBODY, NOBODY)
    size = request["limits"]["directory_bytes"]
    options = f"size={size},nr_inodes={MAX_FILES},mode=700,uid={user},gid={group}".encode()
    _call("mount", b"tmpfs", b"./tmp", b"tmpfs", _NOSUID | _NODEV | _NOEXEC, options)
    if directory is not None:
        target = f".{request['shown_as']}"
        os.makedirs(target, exist_ok=True)
        _call("mount", f"/proc/self/fd/{directory}".encode(), target.encode(), None, _BIND, None)
        _set_attributes(target, 0, _ATTR_NOSUID | _ATTR_NODEV)
        os.close(directory)
    _syscall("pivot_root", b".", b".")
    _call("umount2", b".", _DETACH)
    _set_attributes("/", 0, _ATTR_RDONLY)
    os.chdir("/tmp")  # noqa: S108


def _unshare_as_user() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _call("unshare", _NAMESPACES)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        _write(f"/proc/self/{name}", text)


def _unshare_as_root() -> None:
    """With a second user, to become later: the limit on processes does not apply to root.

    Only a process outside a namespace can map two users into it.
    """
    pid = os.getpid()
    ready, ready_end = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(ready_end)
        try:
            if os.read(ready, 1):
                for name in ("uid_map", "gid_map"):
                    _write(f"/proc/{pid}/{name}", f"0 0 1\n{NOBODY} {NOBODY} 1")
            os._exit(0)
        except OSError as e:
            os._exit(e.errno or 1)
    os.close(ready)
    try:
        _call("unshare", _NAMESPACES)
        os.write(ready_end, b"1")
    finally:
        os.close(ready_end)
        _, status = os.waitpid(helper, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise OSError(code, f"uid_map: {os.strerror(code)}")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, text.encode())
    os.close(fd)


def _drop_privileges(*, keeps_user: bool) -> None:
    """Give up root and every capability for good; a later `exec` gives none back.

    A command keeps the user, who owns the directory that it may change.
    """
    for capability in range(64):
        if _libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0) != 0 and ctypes.get_errno() == errno.EINVAL:
            break  # the kernel has no more
    if os.geteuid() == 0 and not keeps_user:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _call("capset", header, bytes(24))
    _prctl(_NO_NEW_PRIVS, 1)


def _set_attributes(path: str, flags: int, attributes: int) -> None:
    """Add attributes to a mount (mount_setattr)."""
    _syscall("mount_setattr", _AT_FDCWD, path.encode(), flags, struct.pack("=QQQQ", attributes, 0, 0, 0), 32)


def _prctl(option: int, value: int) -> None:
    _call("prctl", option, value, 0, 0, 0)


def _syscall(name: str, *arguments: Any) -> None:
    if _libc.syscall(_number(name), *map(_as_c, arguments)) < 0:
        _fail(name)


def _call(name: str, *arguments: Any) -> None:
    if getattr(_libc, name)(*map(_as_c, arguments)) < 0:
        _fail(name)


def _as_c(value: Any) -> Any:
    return ctypes.c_long(value) if isinstance(value, int) else value


def _fail(name: str) -> NoReturn:
    code = ctypes.get_errno()
    raise OSError(code, f"{name}: {os.strerror(code)}")


# -- system calls that a child may not use

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_MACHINE = os.uname().machine
_DENIED = {
    # name: (x86_64, aarch64), asm/unistd.h; None where the architecture has no such call
    "shmget": (29, 194), "shmat": (30, 196), "socket": (41, 198), "fork": (57, None), "vfork": (58, None),
    "execve": (59, 221), "semget": (64, 190), "msgget": (68, 186), "ptrace": (101, 117), "syslog": (103, 116),
    "uselib": (134, None), "personality": (135, 92), "ustat": (136, None), "sysfs": (139, None),
    "modify_ldt": (154, None), "pivot_root": (155, 41), "_sysctl": (156, None), "adjtimex": (159, 171),
    "chroot": (161, 51), "acct": (163, 89), "settimeofday": (164, 170), "mount": (165, 40), "umount2": (166, 39),
    "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "sethostname": (170, 161),
    "setdomainname": (171, 162), "iopl": (172, None), "ioperm": (173, None), "create_module": (174, None),
    "init_module": (175, 105), "delete_module": (176, 106), "quotactl": (179, 60), "nfsservctl": (180, 42),
    "lookup_dcookie": (212, 18), "clock_settime": (227, 112), "mbind": (237, 235), "set_mempolicy": (238, 237),
    "mq_open": (240, 180), "kexec_load": (246, 104), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "migrate_pages": (256, 238), "unshare": (272, 97), "move_pages": (279, 239),
    "perf_event_open": (298, 241), "fanotify_init": (300, 262), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "clock_adjtime": (305, 266), "setns": (308, 268),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272), "finit_module": (313, 273),
    "memfd_create": (319, 279), "kexec_file_load": (320, 294), "bpf": (321, 280), "execveat": (322, 281),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440), "mount_setattr": (442, 442), "quotactl_fd": (443, 443),
    "memfd_secret": (447, 447), "process_mrelease": (448, 448),
}  # fmt: skip
_CLONE, _CLONE3 = (56, 220), (435, 435)


def _number(name: str) -> int:
    number = _DENIED[name][list(_ARCHITECTURES).index(_MACHINE)]
    assert number is not None
    return number


def _filter() -> bytes:
    """The BPF program: denied calls fail with EPERM, `clone` only makes threads, everything else is allowed."""
    column = list(_ARCHITECTURES).index(_MACHINE)
    load, jump_equal, jump_greater, jump_set, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, no_call, kill = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x80000000
    program: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (jump_equal, 1, 0, _ARCHITECTURES[_MACHINE]),
        (give, 0, 0, kill),
        (load, 0, 0, 0),  # seccomp_data.nr
    ]
    if _MACHINE == "x86_64":  # the numbers of the x32 interface begin there
        program += [(jump_greater, 0, 1, 0x40000000), (give, 0, 0, refuse)]
    for numbers in _DENIED.values():
        if (number := numbers[column]) is not None:
            program += [(jump_equal, 0, 1, number), (give, 0, 0, refuse)]
    # libc makes threads by `clone` where there is no `clone3`, whose flags a filter cannot read
    program += [(jump_equal, 0, 1, _CLONE3[column]), (give, 0, 0, no_call)]
    program += [
        (jump_equal, 0, 4, _CLONE[column]),
        (load, 0, 0, 16),  # the low half of the first argument: the flags
        (jump_set, 0, 1, _CLONE_THREAD),
        (give, 0, 0, allow),
        (give, 0, 0, refuse),
        (give, 0, 0, allow),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _deny_system_calls() -> None:
    code = _filter()
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))  # struct sock_fprog
    holder = ctypes.create_string_buffer(program, len(program))
    _call("prctl", _SECCOMP, 2, ctypes.addressof(holder), 0, 0)


# -- the supervisor


def _emit(value: dict[str, Any]) -> None:
    data = json.dumps(value).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def _supervise(request: dict[str, Any]) -> None:
    """Run the tests one after the other; those that the total time does not reach are reported as such."""
    deadline = time.monotonic() + request["limits"]["total_seconds"]
    for test in request["tests"]:
        left = deadline - time.monotonic()
        if left <= 0:
            result = {"outcome": "not_run", "detail": f"the time limit of all tests was reached before {test['name']}"}
        else:
            result = _run_child(request["code"], test, request["limits"], left)
        _emit(result)
        _empty_directory()


def _run_child(code: list[str], test: dict[str, str], limits: dict[str, Any], left: float) -> dict[str, Any]:
    token = os.urandom(16).hex()
    output, output_end = os.pipe()
    report, report_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _child(code, test, limits, token, output_end, report_end)
        finally:
            os._exit(70)
    os.close(output_end)
    os.close(report_end)
    wall = min(limits["wall_seconds"], left)
    printed, sent, reason = _follow(pid, output, report, limits, time.monotonic() + wall)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(ProcessLookupError):  # no process can be left: none could be started
        os.kill(-1, signal.SIGKILL)
    printed += _rest(output, limits["output_bytes"] + 1 - len(printed))
    sent += _rest(report, 1 << 16)
    os.close(output)
    os.close(report)
    result = _result(bytes(sent), token, status, reason, limits, wall)
    if len(printed) > limits["output_bytes"]:
        result = {"outcome": "output", "detail": f"it printed more than {limits['output_bytes']:,} bytes"}
    return {**result, "output": printed[-limits["shown_bytes"] :].decode("utf-8", "replace")}


def _run_command(request: dict[str, Any]) -> None:
    """Run one shell command in the directory, and report its exit status and output."""
    limits = request["limits"]
    output, output_end = os.pipe()
    report, report_end = os.pipe()
    os.close(report_end)
    pid = os.fork()
    if pid == 0:
        try:
            null = os.open("/dev/null", os.O_RDONLY)
            for fd, target in ((null, 0), (output_end, 1), (output_end, 2)):
                os.dup2(fd, target)
            os.closerange(3, 1 << 10)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.chdir(request["shown_as"])
            os.execve("/bin/sh", ["sh", "-c", request["command"]], request["environment"])  # noqa: S606
        finally:
            os._exit(127)
    os.close(output_end)
    deadline = time.monotonic() + limits["wall_seconds"]
    printed, _, reason = _follow(pid, output, report, limits, deadline)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(ProcessLookupError):  # what it left in the background
        os.kill(-1, signal.SIGKILL)
    printed += _rest(output, limits["output_bytes"] + 1 - len(printed))
    shown = printed[-limits["shown_bytes"] :].decode("utf-8", "replace")
    _emit({"outcome": reason or "ended", "status": os.waitstatus_to_exitcode(status), "output": shown})


def _follow(
    pid: int, output: int, report: int, limits: dict[str, Any], deadline: float
) -> tuple[bytearray, bytearray, str]:
    """What a child prints and reports until it ends, and why it was killed: "time", "output" or nothing."""
    printed, sent, reason = bytearray(), bytearray(), ""
    process = os.pidfd_open(pid)
    poll = select.poll()
    for fd in (process, output, report, 0):
        poll.register(fd, select.POLLIN)
    while True:
        milliseconds = min(_TICK_MS, max(0, int(1000 * (deadline - time.monotonic())) + 1))
        ready = {fd for fd, _ in poll.poll(milliseconds)}
        if 0 in ready and not os.read(0, 1):  # the caller is gone
            os._exit(1)
        for fd, into, maximum in ((output, printed, limits["output_bytes"]), (report, sent, 1 << 16)):
            if fd in ready:
                data = os.read(fd, 1 << 16)
                into += data
                if not data:
                    poll.unregister(fd)
                elif len(into) > maximum:
                    reason = "output"
        if process in ready:
            break
        if not reason and time.monotonic() >= deadline:
            reason = "time"
        if reason:
            os.kill(pid, signal.SIGKILL)
            poll.unregister(process)
            break
    os.close(process)
    return printed, sent, reason


def _rest(fd: int, maximum: int) -> bytes:
    """What is left in a pipe, without waiting for more."""
    os.set_blocking(fd, False)
    data = b""
    with contextlib.suppress(BlockingIOError):
        while len(data) < maximum and (more := os.read(fd, 1 << 16)):
            data += more
    return data


def _result(sent: bytes, token: str, status: int, reason: str, limits: dict[str, Any], wall: float) -> dict[str, Any]:
    if reason == "time":
        return {"outcome": "time", "detail": f"it did not end within {wall:.3g} s"}
    if sent.startswith(token.encode()):
        with contextlib.suppress(ValueError):
            reported = json.loads(sent[len(token) :])
            return {"outcome": str(reported["outcome"]), "detail": str(reported["detail"])[:MAX_DETAIL_CHARS]}
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number in (signal.SIGXCPU, signal.SIGKILL):
            return {"outcome": "time", "detail": f"it used more than {limits['cpu_seconds']} s of processor time"}
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        return {"outcome": "ended", "detail": f"its process was ended by the signal {name}"}
    return {
        "outcome": "ended",
        "detail": f"its process ended with the status {os.waitstatus_to_exitcode(status)} before the test was over",
    }


def _empty_directory() -> None:
    with contextlib.suppress(OSError):
        for entry in os.scandir("/tmp"):  # noqa: S108
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


# -- the child


def _child(
    code: list[str], test: dict[str, str], limits: dict[str, Any], token: str, output: int, report: int
) -> NoReturn:
    """Run the code and one test under the limits, report and end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    null = os.open("/dev/null", os.O_RDONLY)
    for fd, target in ((os.dup(report), _REPORT_FD), (null, 0), (output, 1), (output, 2)):
        os.dup2(fd, target)
    os.closerange(_REPORT_FD + 1, 1 << 10)
    _limit(limits)
    _deny_system_calls()
    try:
        detail = _run(code, test)
        outcome = "failed" if detail else "passed"
    except _CodeError as e:
        outcome, detail = "code_error", str(e)
    except MemoryError:
        outcome, detail = "memory", f"it needed more than {limits['memory_bytes'] >> 20} MiB of memory"
    except SystemExit as e:
        outcome, detail = "ended", f"it called sys.exit({e.code!r})"
    except BaseException as e:  # noqa: BLE001 (whatever the code raises fails its test)
        outcome, detail = "failed", _describe(e)
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os.write(_REPORT_FD, (token + json.dumps({"outcome": outcome, "detail": detail[:MAX_DETAIL_CHARS]})).encode())
    os._exit(0)


def _limit(limits: dict[str, Any]) -> None:
    cpu = limits["cpu_seconds"]
    for what, soft, hard in (
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        (resource.RLIMIT_AS, limits["memory_bytes"], limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["directory_bytes"], limits["directory_bytes"]),
        (resource.RLIMIT_NPROC, limits["threads"] + 2, limits["threads"] + 2),  # launcher and supervisor count
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (resource.RLIMIT_SIGPENDING, 64, 64),
    ):
        _, ceiling = resource.getrlimit(what)
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(what, (soft, hard))


class _CodeError(Exception):
    """The code failed before the test began."""


def _run(code: list[str], test: dict[str, str]) -> str:
    """Run the parts of the code, then the test; the failed examples of a test that is a doctest, else nothing."""
    namespace: dict[str, Any] = {"__name__": "answer", "__builtins__": __builtins__}
    try:
        for number, part in enumerate(code):
            name = "answer.py" if number == len(code) - 1 else "question.py"
            exec(_compile(part, name), namespace)  # noqa: S102 (this is what the sandbox is for)
    except (SystemExit, MemoryError, KeyboardInterrupt):
        raise
    except BaseException as e:  # noqa: BLE001 (whatever the code raises)
        raise _CodeError(_describe(e)) from None
    if test["code"].lstrip().startswith(">>>"):
        import doctest

        examples = doctest.DocTestParser().get_doctest(test["code"], namespace, test["name"], "examples", 0)
        runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        reports: list[str] = []
        if not runner.run(examples, out=reports.append, clear_globs=False).failed:
            return ""
        lines = "".join(reports).splitlines()
        return "\n".join(line for line in lines if not line.startswith("***")) or "an example failed"
    tree = _ShowOperands().visit(ast.parse(test["code"], "test.py"))
    _remember(test["code"], "test.py")
    namespace["_show"] = _show
    exec(compile(ast.fix_missing_locations(tree), "test.py", "exec"), namespace)  # noqa: S102
    return ""


def _compile(source: str, name: str) -> Any:
    _remember(source, name)
    return compile(source, name, "exec", dont_inherit=True)


def _remember(source: str, name: str) -> None:
    """Let tracebacks show the lines."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)


class _ShowOperands(ast.NodeTransformer):
    """Gives `assert a == b` a message with the two values, evaluated once."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST | list[ast.stmt]:
        test = node.test
        if node.msg is not None or not isinstance(test, ast.Compare) or len(test.ops) != 1:
            return node
        left, right = ast.Name("_left", ast.Load()), ast.Name("_right", ast.Load())
        shown = ast.Call(ast.Name("_show", ast.Load()), [left, ast.Constant(type(test.ops[0]).__name__), right], [])
        assigned = [
            ast.Assign([ast.Name("_left", ast.Store())], test.left),
            ast.Assign([ast.Name("_right", ast.Store())], test.comparators[0]),
        ]
        return [
            ast.copy_location(statement, node)
            for statement in (*assigned, ast.Assert(ast.Compare(left, test.ops, [right]), shown))
        ]


def _show(left: object, operator: str, right: object) -> str:
    signs = {"Eq": "==", "NotEq": "!=", "Lt": "<", "LtE": "<=", "Gt": ">", "GtE": ">=", "Is": "is", "In": "in"}
    return f"{repr(left)[:500]} {signs.get(operator, operator)} {repr(right)[:500]} is false"


def _describe(error: BaseException) -> str:
    """The traceback without the frames of this file."""
    with contextlib.suppress(Exception):
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(("answer.py", "test.py"))]
        lines = traceback.format_exception_only(error) + traceback.format_list(frames[-6:])  # the error survives a cut
        return "".join(lines).strip()[:MAX_DETAIL_CHARS]
    return type(error).__name__


if __name__ == "__main__":
    main()
