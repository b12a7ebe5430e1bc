"""The list of packages; everything else about the build is in pyproject.toml.

The repository's root is the package `reason`, so its subpackages are found here and named below it.
"""

from setuptools import find_packages, setup

setup(packages=["reason", *(f"reason.{name}" for name in find_packages())])
