"""The viewer's sources: text is never parsed as markup, files are small, and the build is up to date."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from reason.core.events import JsonlSink
from support.mcts_events import noted_run
from support.step_search_events import ferry_run
from support.viewer_runs import evil_run

VIEWER = Path(__file__).resolve().parents[3] / "sidecar" / "viewer"
WEB, ASSETS = VIEWER / "web", VIEWER / "assets"
BUILT = ("app.js", "app.css", "THIRD_PARTY.txt")
NO_NETWORK = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ECONNRESET|ENETUNREACH|network", re.IGNORECASE)
MARKUP = re.compile(
    r"innerHTML|outerHTML|dangerouslySetInnerHTML|insertAdjacentHTML|document\.write|createContextualFragment"
    r"|DOMParser|srcdoc|\beval\(|new Function|setAttribute\(\s*[\"'](?:on|style|href|src)"
)
ADDRESSES = re.compile(r"\b(?:href|src|xlinkHref|action|formAction)=\{?([^ >}]+)")


def sources() -> list[Path]:
    return sorted(path for path in (WEB / "src").rglob("*") if path.suffix in (".ts", ".tsx"))


def test_no_source_makes_markup_of_text() -> None:
    assert len(sources()) > 40
    found = {p.name: m[0] for p in sources() if (m := MARKUP.search(p.read_text(encoding="utf-8")))}
    assert found == {}


def test_addresses_are_the_viewers_own() -> None:
    """Links never come from text: each starts with a fragment of the page or a path of the viewer."""
    found = {a for p in sources() for a in ADDRESSES.findall(p.read_text(encoding="utf-8"))}
    assert found
    assert {a for a in found if not a.startswith(('"/ui', "`/ui", "`#"))} == set()


def test_what_is_bundled_has_its_licence_there() -> None:
    wanted = json.loads((WEB / "package.json").read_text(encoding="utf-8"))["dependencies"]
    told = (ASSETS / "THIRD_PARTY.txt").read_text(encoding="utf-8")
    for name, version in wanted.items():
        assert re.search(rf"^{re.escape(name)} {re.escape(version)} \(", told, re.MULTILINE), name


@pytest.mark.nightly
def test_the_built_files_are_those_of_the_sources(tmp_path: Path) -> None:
    """Type checks pass, the reducer's tests pass on recorded traces, and a new build equals the committed one."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("no node and npm here: the viewer was not built anew")
    web, traces, built = tmp_path / "web", tmp_path / "traces", tmp_path / "built"
    shutil.copytree(WEB, web, ignore=shutil.ignore_patterns("node_modules"))
    traces.mkdir()
    built.mkdir()
    for name, events in (("ferry", ferry_run()), ("noted", noted_run()), ("evil", evil_run("</script>\u2028🙂"))):
        with JsonlSink(traces / f"{name}.jsonl") as sink:
            for event in events:
                sink(event)

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "REASON_TRACES": str(traces), "CI": "true"}
        return subprocess.run(command, cwd=web, env=environment, capture_output=True, text=True, timeout=280)

    installed = run(npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts")
    if installed.returncode != 0 and NO_NETWORK.search(installed.stderr):
        pytest.skip("npm's registry cannot be reached: the viewer was not built anew")
    assert installed.returncode == 0, installed.stderr
    for command in (("run", "check"), ("test",), ("run", "build", "--", str(built))):
        done = run(npm, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    for name in BUILT:
        assert (built / name).read_bytes() == (ASSETS / name).read_bytes(), f"{name} is old: `npm run build` in {WEB}"
