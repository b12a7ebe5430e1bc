"""The packages and their directory; everything else about the build is in pyproject.toml.

The repository's root is the package `reason`, so its subpackages are found here and named below it. An editable
installation adds `.package`, in which a link has the package's name, to the import path: type checkers and editors read
that, and no import hook.
"""

import sys

from setuptools import find_packages, setup

setup(
    packages=["reason", *(f"reason.{name}" for name in find_packages())],
    package_dir={"": ".package"} if "editable_wheel" in sys.argv else {"reason": "."},
)
