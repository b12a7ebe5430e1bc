"""Check models of several providers at their real endpoints, and compare with the last time: for a scheduled job.

    python benchmarks/live_contract.py FILE.json [MODEL ...]

Without models, checks a small one of each provider whose key is in the environment (`EXAMPLE_MODELS`). Each is checked
by `reason doctor --live MODEL --json`, for less than five US cents. FILE.json gets the date, the version and each
model's cells; one that could not be checked keeps those of the last time. Exit status 1 if a cell is broken that held
the last time, or if a model cannot be checked.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reason.core.version import __version__
from reason.serving.litellm.providers import EXAMPLE_MODELS, key_in_environment

TIMEOUT_S = 600
COMMAND = (sys.executable, "-c", "from reason.cli.main import main; raise SystemExit(main())")


def check(model: str) -> dict[str, Any]:
    """What the doctor prints of a model; its message as "error" where the model cannot be checked."""
    command = [*COMMAND, "doctor", "--live", model, "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        found: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return {"error": f"no result in {TIMEOUT_S} s"}
    except ValueError:
        return {"error": done.stderr.strip()[-500:]}
    return {"error": found["error"]["message"]} if "error" in found else found


def states(found: Mapping[str, Any]) -> dict[str, str]:
    """The states of a model's cells."""
    return {cell["name"]: cell["state"] for cell in found.get("checks", ())}


def regressions(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The cells of a model that held and are broken now."""
    last = states(before)
    broken = [cell for cell in now["checks"] if cell["state"] == "fail" and last.get(cell["name"]) == "ok"]
    return [f"{cell['name']}: {cell['detail']}" for cell in broken]


def main(arguments: list[str] | None = None) -> int:
    """Check, compare, write; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("models", nargs="*")
    args = parser.parse_args(arguments)
    models = args.models or [m for provider, m in EXAMPLE_MODELS.items() if key_in_environment(provider)]
    if not models:
        parser.error("no model is named, and no key of a provider is set")
    last = json.loads(args.file.read_text(encoding="utf-8"))["models"] if args.file.exists() else {}
    results, worse = dict(last), []
    for model in models:
        now = check(model)
        if "error" in now:
            worse.append(f"{model} cannot be checked: {now['error']}")
            continue
        worse += [f"{model}, {cell}" for cell in regressions(last.get(model, {}), now)]
        results[model] = now
        broken = [name for name, state in states(now).items() if state == "fail"]
        print(f"{model}: {', '.join(broken) + ' broken' if broken else 'ok'}")
    written = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "version": __version__, "models": results}
    args.file.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for line in worse:
        print(f"worse than the last time: {line}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
