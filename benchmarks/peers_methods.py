"""Which methods are compared, and how each peer offers them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).resolve().parent / "peers"
METHODS = ("self-consistency", "best-of-n", "beam", "particle-filter", "mcts", "ab-mcts")
SYSTEM = "You are a careful assistant."
CHAIN = "Let's work this out step by step and put the final answer within \\boxed{}."
STEPS = (
    "Solve this in short numbered steps, with a blank line between one step and the next. "
    "End with a last step that gives the final answer within \\boxed{}."
)


@dataclass(frozen=True)
class Peer:
    """A peer.

    Attributes:
        name: How tables call it.
        venv: Name of its virtual environment (`peers/install`).
        package: Its distribution.
        imported: The statement by which its users import it.
        runner: Script that has it answer questions.
        offers: Its name for each method that it offers.
    """

    name: str
    venv: str
    package: str
    imported: str
    runner: str
    offers: dict[str, str]


OURS = "reason"
ALL = (
    Peer(
        OURS,
        "reason",
        "reason-orchestrator",
        "from reason import Reasoner",
        "run_reason.py",
        {
            "self-consistency": "`self-consistency`",
            "best-of-n": "`best-of-n`",
            "beam": "`beam`",
            "particle-filter": "`particle-filter`",
            "mcts": "`mcts`",
        },
    ),
    Peer(
        "its-hub",
        "its_hub",
        "its_hub",
        "import its_hub",
        "run_its_hub.py",
        {
            "self-consistency": "`SelfConsistency`",
            "best-of-n": "`BestOfN`",
            "beam": "`BeamSearch`",
            "particle-filter": "`ParticleFiltering`",
        },
    ),
    Peer(
        "OptiLLM",
        "optillm",
        "optillm",
        "import optillm",
        "run_optillm.py",
        {"self-consistency": "`majority_voting`", "best-of-n": "`bon`", "mcts": "`mcts`"},
    ),
    Peer(
        "treequest",
        "treequest",
        "treequest",
        "import treequest",
        "run_treequest.py",
        {"mcts": "`StandardMCTS`", "ab-mcts": "`ABMCTSA`"},
    ),
)
"""All peers, ours first."""


@dataclass(frozen=True)
class Cell:
    """One peer with one method at one size; the size is about the number of whole solutions that are written."""

    peer: str
    method: str
    size: int

    @property
    def file(self) -> str:
        """Name of the file of its answers."""
        return f"{self.peer}-{self.method}-{self.size}.jsonl"


def cells(sizes: list[int], only: str = "", methods: str = "") -> list[Cell]:
    """Everything that is to be run, ours first of each method.

    Args:
        sizes: Sizes.
        only: Names of peers, with commas; empty is all.
        methods: Names of methods likewise.
    """
    peers = [peer for peer in ALL if not only or peer.name in only.split(",")]
    wanted = [method for method in METHODS if not methods or method in methods.split(",")]
    return [
        Cell(peer.name, method, size) for size in sizes for method in wanted for peer in peers if method in peer.offers
    ]


def peer_named(name: str) -> Peer:
    """A peer by its name."""
    return next(peer for peer in ALL if peer.name == name)
