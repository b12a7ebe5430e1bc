"""mkdocstrings reads the package's parts and no more: neither `.package` again, nor a `.venv` beside them."""

import os

from support.doc_blocks import ROOT
from support.script_modules import load_script


def test_the_documented_package_has_its_own_modules_only(tmp_path):
    load_script(ROOT / "docs" / "package_links.py").link_package(tmp_path)
    assert (tmp_path / "reason" / "__init__.py").resolve().parent != ROOT  # which mkdocstrings would walk
    found = {
        os.path.relpath(os.path.join(directory, name), tmp_path / "reason")
        for directory, _, names in os.walk(tmp_path, followlinks=True)
        for name in names
        if name.endswith(".py")
    }
    parts = [p.parent for p in ROOT.glob("*/__init__.py")]
    assert len(parts) >= 9
    assert found == {"__init__.py"} | {str(p.relative_to(ROOT)) for part in parts for p in part.rglob("*.py")}
