"""`reason vote`: one answer out of samples made elsewhere."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Json
from .render.console import out, printable, say, write_line

if TYPE_CHECKING:
    from ..reasoning.voting.path_votes import Vote
    from ..reasoning.voting.sample_files import Pool

EXAMPLES = """
[b]Examples[/b]

reason vote samples.jsonl
reason vote samples.jsonl --method pc --json
reason vote samples.jsonl --kind number --set init=multistart
generate | reason vote - --method sc

A line of FILE is one sample:

{"text": "… so x is 4", "answer": "4", "logprobs": [-0.1, -0.02]}

[b]answer[/b] is read from the text where it is missing. [b]mean_logprob[/b] may stand for
[b]logprobs[/b]; without either, votes are only counted. Where samples belong to
several questions, each names its [b]question[/b].
"""


def vote(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="JSON lines, one sample each; - reads them from standard input.")
    ],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="rpc|pc|ppl|sc",
            help="rpc: by probability, improbable samples pruned; pc: by probability; ppl: the likeliest sample; "
            "sc: by number.",
        ),
    ] = "rpc",
    kind: Annotated[
        str,
        typer.Option(
            metavar="auto|number|math|text|choice|yes_no",
            help="What the answers are, which decides when two are the same.",
        ),
    ] = "auto",
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Detail of the count; may be repeated: init, dedup, unparsed, representative, guards, min_paths.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Pick one answer from samples made elsewhere, by their number or their probability.

    Prints the answers with their confidences; what was pruned and why goes to standard error.
    """
    from ..reasoning.voting.path_votes import method_named, options_from
    from ..reasoning.voting.sample_files import count_pools, kind_named, read_bytes, read_pools
    from .inputs import STDIN, parse_parameters
    from .interrupts import run_interruptible

    chosen, answers_are = method_named(method), kind_named(kind)
    options = options_from(parse_parameters(parameters or ()))
    from_stdin = file == STDIN
    content = sys.stdin.buffer.read() if from_stdin else read_bytes(Path(file))
    pools = read_pools(content, "standard input" if from_stdin else file, answers_are)
    votes = run_interruptible(count_pools(pools, chosen, options))
    for pool, counted in zip(pools, votes, strict=True):
        if as_json:
            write_line(json.dumps(_record(pool, counted), ensure_ascii=False, allow_nan=False))
        else:
            _print(pool, counted)


def _record(pool: Pool, counted: Vote) -> dict[str, Any]:
    classes = [
        {
            "answer": voted.answer,
            "confidence": _finite(voted.confidence),
            "paths": _lines(pool, voted.members),
        }
        for voted in counted.classes
    ]
    return {
        **({} if pool.question is None else {"question": pool.question}),
        "answer": counted.answer,
        "confidence": _finite(counted.confidence),
        "method": counted.used,
        "classes": classes,
        "ties": len(counted.ties),
        "pruned": _lines(pool, counted.pruned),
        "unparsed": counted.unparsed,
        "fit": None if counted.fit is None else counted.fit.diagnostics(),
        "degraded": list(counted.degraded),
    }


def _print(pool: Pool, counted: Vote) -> None:
    from rich.text import Text

    from .render.console import plain_table

    if pool.question is not None:
        out().print(Text(printable(" ".join(pool.question.split())), "bold"))
    table = plain_table("confidence", "paths", "answer")
    for voted in counted.classes:
        answer = Text("no answer", "dim") if voted.answer is None else Text(printable(voted.answer))
        table.add_row(f"{voted.confidence:.4f}", str(len(voted.members)), answer)
    if counted.classes:
        out().print(table)
    else:
        say("no sample has an answer")
    if len(counted.ties) > 1:
        say(f"{len(counted.ties)} answers share the first place")
    if counted.pruned:
        lines = ", ".join(map(str, _lines(pool, counted.pruned)))
        say(f"pruned {len(counted.pruned)} of {len(pool.paths)}: lines {lines}")
    if counted.unparsed:
        say(f"without an answer: {counted.unparsed} of {len(pool.paths)}")
    if (fit := counted.fit) is not None:
        high, low = fit.means
        say(
            f"fit: {fit.w:.3f} of the paths around {high:.4f} (shape {fit.k1:.4g}, scale {fit.lam1:.4g}), the others "
            f"around {low:.4f} (shape {fit.k2:.4g}, scale {fit.lam2:.4g}); NLL {fit.nll:.4f}, at the start "
            f"{fit.start_nll:.4f}; {fit.iterations} iterations{'' if fit.converged else ', not converged'}"
        )
    for sentence in counted.degraded:
        say(sentence, label="note", style="yellow")


def _lines(pool: Pool, positions: Sequence[int]) -> list[int]:
    return [pool.lines[i] for i in positions]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
