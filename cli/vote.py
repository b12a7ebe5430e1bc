"""`reason vote`: one answer from existing samples."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .options import Json
from .render.console import one_line, out, plain_table, printable, say, write_line

if TYPE_CHECKING:
    from ..reasoning.voting.path_votes import Vote
    from ..reasoning.voting.sample_files import SamplePool

EXAMPLES = """
[b]Examples[/b]

reason vote samples.jsonl
reason vote samples.jsonl --method pc --json
reason vote samples.jsonl --kind number --parity reference
generate | reason vote - --method sc

Each line of FILE is one sample:

{"text": "… so x is 4", "answer": "4", "logprobs": [-0.1, -0.02]}

A missing [b]answer[/b] is extracted from the text. [b]mean_logprob[/b] can replace [b]logprobs[/b];
without either, votes are counted. Samples of several questions each name their [b]question[/b].
"""


def vote(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="JSON Lines file, one sample per line; - reads standard input.")
    ],
    method: Annotated[
        Literal["rpc", "pc", "ppl", "sc"],
        typer.Option(
            metavar="rpc|pc|ppl|sc",
            help="Vote by this method. rpc: by probability, after pruning improbable samples; pc: by probability; ppl: "
            "the most likely sample; sc: by count.",
        ),
    ] = "rpc",
    kind: Annotated[
        Literal["auto", "number", "math", "text", "choice", "yes_no"],
        typer.Option(
            metavar="auto|number|math|text|choice|yes_no",
            help="Compare the answers as this kind, which decides when two are equal.",
        ),
    ] = "auto",
    parity: Annotated[
        Literal["none", "reference"],
        typer.Option(metavar="none|reference", help="Count votes exactly as the RPC authors' program does."),
    ] = "none",
    as_json: Json = False,
) -> None:
    """Choose one answer among existing samples, by count or by probability.

    Prints the answers with their confidences. Notes on pruning go to standard error.
    """
    from ..reasoning.voting.sample_files import read_bytes, read_pools, vote_on_pools, vote_record
    from .inputs import STDIN
    from .interrupts import run_interruptible

    content = sys.stdin.buffer.read() if file == STDIN else read_bytes(Path(file))
    pools = read_pools(content, "standard input" if file == STDIN else file, kind)
    votes = run_interruptible(vote_on_pools(pools, method, parity))
    for pool, result in zip(pools, votes, strict=True):
        if as_json:
            write_line(json.dumps(vote_record(pool, result), ensure_ascii=False, allow_nan=False))
        else:
            _print(pool, result)


def _print(pool: SamplePool, result: Vote) -> None:
    from rich.text import Text

    from ..reasoning.voting.sample_files import lines_of

    if pool.question is not None:
        out().print(Text(one_line(pool.question), "bold"))
    table = plain_table("confidence", "paths", "answer")
    for voted in result.classes:
        answer = Text("no answer", "dim") if voted.answer is None else Text(printable(voted.answer))
        table.add_row(f"{voted.confidence:.4f}", str(len(voted.members)), answer)
    if result.classes:
        out().print(table)
    else:
        say("no sample contains an answer")
    if len(result.ties) > 1:
        say(f"{len(result.ties)} answers tie for first place")
    if result.pruned:
        lines = ", ".join(map(str, lines_of(pool, result.pruned)))
        say(f"pruned {len(result.pruned)} of {len(pool.paths)}: lines {lines}")
    if result.unparsed:
        say(f"samples without an answer: {result.unparsed} of {len(pool.paths)}")
    if (fit := result.fit) is not None:
        high, low = fit.means
        say(
            f"fit: {fit.w:.3f} of the paths around {high:.4f} (shape {fit.k1:.4g}, scale {fit.lam1:.4g}), the others "
            f"around {low:.4f} (shape {fit.k2:.4g}, scale {fit.lam2:.4g}); NLL {fit.nll:.4f}, initially "
            f"{fit.start_nll:.4f}; {fit.iterations} iterations{'' if fit.converged else ', not converged'}"
        )
    for sentence in result.degraded:
        say(sentence, label="note", style="yellow")
