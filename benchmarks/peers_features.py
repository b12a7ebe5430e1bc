"""The table of features in docs/comparison.md: our column from the registries, a peer's from its installed version.

    python benchmarks/peers_features.py                     prints it
    python benchmarks/peers_features.py --write             writes it into docs/comparison.md
    python benchmarks/peers_features.py --check             exits with 1 if the page's differs
    python benchmarks/peers_features.py --peers DIRECTORY   checks every cell against the installed packages

A peer's cell is a claim: a file of its package and a piece of text in it. An empty cell states that we did not find it
there, not that it cannot be done.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from reason.core.budget import Budget
from reason.reasoning.strategy import STRATEGIES
from reason.serving.factory import LOADERS
from reason.verify.verifier import VERIFIERS
from reporting import table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "comparison.md"
_MARKED = re.compile(r"(<!-- table:features -->\n).*?(<!-- end -->)", re.S)


@dataclass(frozen=True)
class Claim:
    """What a peer offers.

    Attributes:
        shown: What the cell states: its own name for it.
        file: File below `site-packages`.
        states: What is in that file.
    """

    shown: str
    file: str
    text: str


@dataclass(frozen=True)
class Version:
    """A peer and its version."""

    venv: str
    package: str
    number: str
    page: str


VERSIONS = {
    "its-hub": Version("its_hub", "its_hub", "1.2.0", "https://pypi.org/project/its-hub/1.2.0/"),
    "OptiLLM": Version("optillm", "optillm", "0.4.0", "https://pypi.org/project/optillm/0.4.0/"),
    "treequest": Version("treequest", "treequest", "0.3.3", "https://pypi.org/project/treequest/0.3.3/"),
}
"""The versions that the claims are about; `peers/install` installs these."""


def strategies(*names: str) -> Callable[[], str]:
    """A cell of ours: these strategies, which must be registered."""

    def cell() -> str:
        missing = [name for name in names if name not in STRATEGIES.names()]
        if missing:
            raise SystemExit(f"no strategy is called {missing[0]!r} (any more)")
        return ", ".join(f"`{name}`" for name in names)

    return cell


def _limits() -> str:
    return ", ".join(f"`{name}`" for name in Budget.model_fields)


def _verifiers() -> str:
    return ", ".join(f"`{name}`" for name in VERIFIERS.names())


def _backends() -> str:
    return ", ".join([*(f"`{name}/…`" for name in LOADERS.names()), "`hosted_vllm/…`", "anything else"])


def _its(shown: str, file: str, text: str) -> Claim:
    return Claim(shown, f"its_hub/{file}", text)


def _opti(shown: str, file: str, text: str) -> Claim:
    return Claim(shown, f"optillm/{file}", text)


def _tree(shown: str, file: str, text: str) -> Claim:
    return Claim(shown, f"treequest/{file}", text)


ALGORITHMS = "core/algorithms"
FEATURES: Mapping[str, tuple[Callable[[], str], Mapping[str, Claim]]] = {
    "best of n": (
        strategies("best-of-n"),
        {
            "its-hub": _its("`BestOfN`", f"{ALGORITHMS}/bon.py", "class BestOfN("),
            "OptiLLM": _opti("`bon`", "bon.py", "def best_of_n_sampling("),
        },
    ),
    "votes over samples": (
        strategies("self-consistency", "rpc"),
        {
            "its-hub": _its("`SelfConsistency`", f"{ALGORITHMS}/self_consistency.py", "class SelfConsistency("),
            "OptiLLM": _opti(
                "`majority_voting`, `self_consistency`", "plugins/majority_voting_plugin.py", 'SLUG = "majority_voting"'
            ),
        },
    ),
    "votes over calls of tools": (
        strategies("self-consistency"),
        {"its-hub": _its("`tool_vote`", f"{ALGORITHMS}/self_consistency.py", '"tool_hierarchical"')},
    ),
    "as many samples as are needed": (
        strategies("adaptive"),
        {
            "its-hub": _its(
                "`AdaptiveSelfConsistency`, `BetaSelfConsistency`",
                f"{ALGORITHMS}/beta_self_consistency.py",
                "class BetaSelfConsistency(",
            )
        },
    ),
    "beams over steps": (
        strategies("beam", "astar"),
        {
            "its-hub": _its("`BeamStrategy`", f"{ALGORITHMS}/beam_search.py", "class BeamSearch("),
            "treequest": _tree(
                "`TreeOfThoughtsBFSAlgo`", "algos/tree_of_thought_bfs.py", "class TreeOfThoughtsBFSAlgo("
            ),
        },
    ),
    "particles over steps": (
        strategies("particle-filter"),
        {
            "its-hub": _its(
                "`ParticleFilterStrategy`, `ParticleGibbs`",
                f"{ALGORITHMS}/particle_gibbs.py",
                "class ParticleFiltering(",
            )
        },
    ),
    "Monte Carlo tree search": (
        strategies("coat"),
        {
            "OptiLLM": _opti("`mcts`, `rstar`", "mcts.py", "def chat_with_mcts("),
            "treequest": _tree("`StandardMCTS`, `ABMCTSA`, `ABMCTSM`", "algos/standard_mcts.py", "class StandardMCTS("),
        },
    ),
    "several models on one question": (
        strategies("edgejury", "glimprouter", "cascade"),
        {
            "OptiLLM": _opti("`moa` (of one model)", "moa.py", "def mixture_of_agents("),
            "treequest": _tree(
                "a generator for each action", "algos/standard_mcts.py", "generate_fn: Mapping[str, GenerateFnType"
            ),
        },
    ),
    "the method is chosen for the question": (
        strategies("auto"),
        {"OptiLLM": _opti("`router` (a trained classifier)", "plugins/router_plugin.py", 'SLUG = "router"')},
    ),
    "answers are verified on evidence": (_verifiers, {}),
    "limits of a question": (
        _limits,
        {"its-hub": _its("number of samples", "integration/iaas/models.py", "budget: int | None")},
    ),
    "models": (
        _backends,
        {
            "its-hub": _its("OpenAI's format", "core/lms/openai_lm.py", "class OpenAICompatibleLanguageModel("),
            "OptiLLM": _opti(
                "OpenAI's format, Cerebras, Azure, LiteLLM, its own engine", "server.py", "LiteLLMWrapper"
            ),
            "treequest": _tree("none of its own", "types.py", "GenerateFnType"),
        },
    ),
    "a server in OpenAI's format": (
        lambda: "`reason serve`",
        {
            "its-hub": _its("`its-iaas`", "integration/iaas/app.py", '@app.post("/v1/chat/completions"'),
            "OptiLLM": _opti("`optillm`", "server.py", "@app.route('/v1/chat/completions'"),
        },
    ),
    "a method of one's own": (
        lambda: f"the entry points `{STRATEGIES.group}`",
        {
            "its-hub": _its("a subclass", "api/algorithm.py", "class AbstractScalingAlgorithm("),
            "OptiLLM": _opti("a file with `SLUG` and `run`", "server.py", "module.SLUG"),
            "treequest": _tree("a subclass", "algos/base.py", "class Algorithm("),
        },
    ),
}


def features() -> str:
    """The table in Markdown."""
    head = ["", "reason", *(f"[{n} {v.number}]({v.page})" for n, v in VERSIONS.items())]
    rows = [
        [name, ours(), *(claims[peer].shown if peer in claims else "" for peer in VERSIONS)]
        for name, (ours, claims) in FEATURES.items()
    ]
    return table(head, rows).replace("---:", "---")


def unfounded(peers: Path) -> list[str]:
    """What is claimed of a peer and does not stand in what is installed."""
    wrong = []
    for peer, version in VERSIONS.items():
        directory = next((peers / version.venv / "lib").glob("python3*"), None)
        packages = None if directory is None else directory / "site-packages"
        if packages is None or not any(packages.glob(f"{version.package}-{version.number}.dist-info")):
            wrong.append(f"{peer} {version.number} is not installed in {peers / version.venv}")
            continue
        for name, (_, claims) in FEATURES.items():
            claim = claims.get(peer)
            if claim is not None and claim.text not in _text(packages / claim.file):
                wrong.append(f"{peer}, {name}: {claim.file} does not contain {claim.text!r}")
    return wrong


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def with_table(text: str) -> str:
    """A page with the table made again."""
    if not _MARKED.search(text):
        raise SystemExit("the page has no table marked features")
    return _MARKED.sub(lambda m: m[1] + features() + "\n" + m[2], text)


def main() -> int:
    """Print, write, check or look up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--peers", type=Path, help="directory of their virtual environments (benchmarks/peers/install)")
    args = parser.parse_args()
    if args.peers is not None:
        wrong = unfounded(args.peers)
        print("\n".join(wrong), file=sys.stderr)
        return 1 if wrong else 0
    if args.write or args.check:
        old = PAGE.read_text(encoding="utf-8")
        new = with_table(old)
        if args.write:
            PAGE.write_text(new, encoding="utf-8")
        return 1 if args.check and new != old else 0
    print(features())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
