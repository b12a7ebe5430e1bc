"""What `davinci` says of claims of actions and facts in the answers of agents that used tools.

    python benchmarks/agent_answers.py --judges small lexical oracle

240 answers of our own (`data/agent_answers/agent_answers.jsonl`), three to each of 80 scenarios, with the label of each
sentence. `oracle` is a scripted judge that is always right about a sentence and a call: what remains are the errors of
the rules. The rules were written on the lines with even numbers (from 0).
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from reason.core.settings import load_settings
from reason.core.types import Candidate, Question, Solution
from reason.reasoning.strategy import Models
from reason.verify.davinci.davinci import Davinci
from reason.verify.davinci.decision import DavinciConfig
from reason.verify.entailment.factory import load_entailment
from reason.verify.types import Claim, Pair, Support
from reason.verify.verifier import ToolUse
from reporting import made_here, table

DATA = Path(__file__).with_name("data") / "agent_answers" / "agent_answers.jsonl"
LABELS = ("true_action", "false_action", "true_fact", "contradiction", "other")
VERDICTS = ("supported", "refuted", "not_enough_evidence", "disputed")


class Oracle:
    """A judge that knows the labels."""

    name, identity, max_words = "oracle", "oracle", None

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._labels = {claim["text"]: claim["label"] for row in rows for claim in row["claims"]}

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """See `Entailment`."""
        return [self._support(self._labels[pair.claim]) for pair in pairs]

    @staticmethod
    def _support(label: str) -> Support:
        if label in ("true_action", "true_fact"):
            return Support(0.98, 0.01, 0.01)
        return Support(0.01, 0.01, 0.98) if label == "other" else Support(0.01, 0.98, 0.01)

    async def aclose(self) -> None:
        """Do nothing."""


def uses_of(row: Mapping[str, Any]) -> tuple[ToolUse, ...]:
    """The calls of an answer, as the loop gives them to a verifier."""
    tools = {tool["name"]: tool for tool in row["tools"]}
    return tuple(
        ToolUse(
            source=f"{call['tool']}:{i}",
            tool=call["tool"],
            description=tools[call["tool"]]["description"],
            arguments=json.dumps(call["arguments"], ensure_ascii=False),
            effect=tools[call["tool"]]["effect"],
            ok=call["ok"],
            result=call["result"] if isinstance(call["result"], str) else json.dumps(call["result"]),
        )
        for i, call in enumerate(row["calls"])
    )


async def verdicts(rows: Sequence[Mapping[str, Any]], judge: str) -> list[list[tuple[str, str, str]]]:
    """The label, the verdict and the text of each sentence, by answer."""
    scripted = judge in ("oracle", "lexical")
    entailment: Any = Oracle(rows) if judge == "oracle" else await load_entailment(judge, load_settings())
    config = DavinciConfig(judge=entailment.name, verdicts="none" if scripted else "", internal=())
    run: Any = SimpleNamespace(degrade=lambda _: None, derive_seed=lambda *_: 0)
    results = []
    try:
        for row in rows:
            context: Any = SimpleNamespace(
                run=run, models=Models({}), entailment=entailment, retriever=None, tool_uses=uses_of(row)
            )
            found = [row["answer"].index(claim["text"]) for claim in row["claims"]]
            claims = [
                Claim(text=claim["text"], start=start, end=start + len(claim["text"]))
                for claim, start in zip(row["claims"], found, strict=True)
            ]
            solution = Solution(chosen=0, candidates=(Candidate(text=row["answer"]),))
            reports = await Davinci(config).examine(claims, Question(text=row["question"]), solution, context)
            results.append([(c["label"], r.verdict, c["text"]) for c, r in zip(row["claims"], reports, strict=True)])
    finally:
        await entailment.aclose()
    return results


def summary(judge: str, half: str, results: Sequence[Sequence[tuple[str, str, str]]]) -> list[list[str]]:
    """A row for each label."""
    counts = Counter((label, verdict) for answer in results for label, verdict, _ in answer)
    rows = []
    for label in LABELS:
        own = [counts[label, verdict] for verdict in VERDICTS]
        rows.append([judge, half, label, *(str(count) for count in own)])
    return rows


async def main() -> None:
    """Print the table, and with --show the sentences of a label with a verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judges", nargs="+", default=["small", "oracle"])
    parser.add_argument("--limit", type=int, help="answers to read")
    parser.add_argument("--show", metavar="LABEL:VERDICT", help="print these sentences")
    options = parser.parse_args()
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()][: options.limit]
    lines = []
    for judge in options.judges:
        results = await verdicts(rows, judge)
        for half, parity in (("even", 0), ("odd", 1)):
            lines += summary(judge, half, results[parity::2])
        for answer in results:
            for label, verdict, text in answer:
                if options.show == f"{label}:{verdict}":
                    print(judge, "|", text)
    print(table(["judge", "lines", "label", *VERDICTS], lines))
    print(f"\n{made_here()}")


if __name__ == "__main__":
    asyncio.run(main())
