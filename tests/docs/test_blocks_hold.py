"""Every block of the docs is valid, whether it is run here or not: commands parse, names exist, settings load."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import tomllib
from pathlib import Path

import pytest
import yaml
from reason.core.settings import load_settings
from reason.evals.sweep import read_sweep
from support.doc_blocks import ROOT, Block, all_blocks, blocks_of, indented_code, pages, read_page
from support.doc_commands import commands, refused, shown_commands
from support.doc_skip_reasons import REASONS, reason_problem

BLOCKS = all_blocks()
RUN_BY_PAGES = {"bash", "console", "python"}
CHECKED = {"toml", "json", "yaml"}
PICTURES = {"text"}  # what a command printed, and formulas
PLUGINS = {
    "reason.strategies",
    "reason.verifiers",
    "reason.datasets",
    "reason.logits_processors",
}


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def test_every_block_is_run_or_checked():
    assert {b.location: b.language for b in BLOCKS if b.language not in RUN_BY_PAGES | CHECKED | PICTURES} == {}
    assert {p: lines for p in pages() if (lines := indented_code(read_page(p)))} == {}, "put it between fences"
    assert len(BLOCKS) > 100
    assert indented_code("So:\n\n    reason ask\n") == [3]


def test_skipped_blocks_have_valid_reasons():
    marked = [b for b in BLOCKS if b.not_run]
    assert {b.location: wrong for b in marked if (wrong := reason_problem(b.not_run, b.code))} == {}
    assert {b.location for b in marked if b.language not in RUN_BY_PAGES} == set(), "nobody would run these"
    assert {b.not_run for b in marked} == set(REASONS), "a reason that no page gives"
    assert "nothing in the block" in reason_problem("it needs Docker", "reason ask x\n")
    assert "unknown reason" in reason_problem("it is slow", "docker run x\n")
    with pytest.raises(ValueError, match=r"a\.md:1: the fence"):
        blocks_of("a.md", "```bash\nreason ask\n")


def test_every_reason_command_is_accepted():
    wrong, seen = {}, 0
    assert "No such option" in refused(["reason", "ask", "Q", "--stragety", "cot"])
    for block in of("bash", "console"):
        code = shown_commands(block.code) if block.language == "console" else block.code
        for words in commands(code):
            if words[0].endswith("/reason"):
                words[0] = "reason"
            if words[0] == "reason":
                seen += 1
                if why := refused(words):
                    wrong[f"{block.location} {' '.join(words)}"] = why
    assert wrong == {}
    assert seen > 100


@pytest.mark.parametrize("block", of("yaml"), ids=lambda block: block.location)
def test_yaml_blocks_parse(block):
    assert yaml.safe_load(block.code)


def test_every_script_in_a_command_exists():
    named = {w for b in of("bash") for words in commands(b.code) for w in words if w.startswith("benchmarks/")}
    scripts = {w for w in named if w.endswith(".py") or w == "benchmarks/peers/install"}
    assert len(scripts) > 10
    assert {s for s in scripts if not (ROOT / s).exists()} == set()


def test_python_blocks_compile_and_their_imports_exist():
    missing, seen = [], 0
    for block in of("python"):
        tree = compile(block.code, block.location, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "reason":
                module = importlib.import_module(node.module or "")
                seen += len(node.names)
                missing += [
                    f"{block.location} {node.module}.{n.name}" for n in node.names if not hasattr(module, n.name)
                ]
    assert missing == []
    assert seen > 50


def test_json_blocks_are_valid():
    for block in of("json"):
        for line in block.code.replace(", …", "").splitlines():
            json.loads(line)


def test_toml_blocks_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    settings, sweeps, plugins = [], [], []
    for block in of("toml"):
        table = tomllib.loads(block.code)
        if "project" in table:
            plugins += list(table["project"]["entry-points"])
        elif "strategy" in table and isinstance(table["strategy"], list):
            (tmp_path / "sweep.toml").write_text(block.code, encoding="utf-8")
            sweeps.append(read_sweep(tmp_path / "sweep.toml"))
        else:
            (tmp_path / "reason.toml").write_text(block.code, encoding="utf-8")
            settings.append(load_settings())
            assert settings[-1].model_fields_set, block.location
    assert set(plugins) <= PLUGINS
    assert len(settings) > 5
    assert len(sweeps) > 1
