"""The shape of the repository: sizes, names, packaging, and what `import reason` brings along."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest
import reason

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "misc"}
HEAVY = {
    "torch",
    "transformers",
    "vllm",
    "litellm",
    "openai",
    "langgraph",
    "langchain_core",
    "sentence_transformers",
    "faiss",
    "numpy",
    "scipy",
    "sympy",
    "bm25s",
    "mcp",
    "aiohttp",
    "pypdf",
}
NOT_PACKAGES = {"tests", "benchmarks", "examples", "docs", "training"}


def top_folders() -> list[Path]:
    return [p for p in ROOT.iterdir() if p.is_dir() and (p / "__init__.py").is_file() and p.name not in NOT_PACKAGES]


def source_files() -> list[Path]:
    folders = [*top_folders(), *(ROOT / name for name in sorted(NOT_PACKAGES) if (ROOT / name).is_dir())]
    inside = [path for folder in folders for path in folder.rglob("*.py")]
    return sorted([*ROOT.glob("*.py"), *inside])


def module_names() -> set[str]:
    """Dotted names of the packages that lie in the checkout."""
    inits = [init.parent for folder in top_folders() for init in folder.rglob("__init__.py")]
    return {"reason", *(".".join(["reason", *folder.relative_to(ROOT).parts]) for folder in inits)}


def test_no_file_or_folder_is_named_after_nothing():
    names = {part for path in source_files() for part in path.relative_to(ROOT).with_suffix("").parts}
    assert names & FORBIDDEN_NAMES == set()


def test_no_python_file_of_a_package_lies_outside_one():
    packages = {name.replace("reason", "", 1).replace(".", "/").strip("/") for name in module_names()}
    stray = [
        path.relative_to(ROOT).as_posix()
        for folder in top_folders()
        for path in folder.rglob("*.py")
        if path.parent.relative_to(ROOT).as_posix() not in packages
    ]
    assert stray == []


def test_entry_points_lead_somewhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    targets = [*project["scripts"].values(), *(t for group in project["entry-points"].values() for t in group.values())]
    for target in targets:
        module, _, name = target.partition(":")
        path = ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py")
        assert path.is_file(), target
        assert name in path.read_text(encoding="utf-8"), target


def loaded_after(statement: str) -> set[str]:
    """Top-level modules in memory after a statement, in an interpreter of its own."""
    script = f"import json, sys\n{statement}\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "statement",
    [
        "import reason",
        "import reason; reason.Reasoner(settings=reason.Settings())",
        "import reason.core",
        "import reason.reasoning.answers.equivalence, reason.reasoning.rlot.navigator, "
        "reason.reasoning.voting.path_votes, reason.reasoning.retrieval.retriever, "
        "reason.reasoning.retrieval.index.builder, reason.reasoning.retrieval.index.saved_index, "
        "reason.reasoning.retrieval.sources.factory, reason.reasoning.retrieval.sources.mcp",
    ],
)
def test_importing_loads_nothing_heavy(statement):
    loaded = loaded_after(statement)
    assert "reason" in loaded
    assert loaded & HEAVY == set()


def test_the_public_names_are_the_listed_ones():
    listed = reason.__all__
    assert len(listed) == len(set(listed))
    for name in listed:
        value = getattr(reason, name)
        assert not isinstance(value, types.ModuleType), name
    assert set(dir(reason)) == set(listed)
    homes = [name for names in reason._MODULES.values() for name in names]
    assert sorted(homes) == sorted(listed)
    absent = "no_such_name"
    with pytest.raises(AttributeError, match=absent):
        getattr(reason, absent)


def test_the_version_is_one():
    from importlib.metadata import version

    assert version("reason-orchestrator") == reason.__version__
