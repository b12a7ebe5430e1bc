"""`reason verify`: check an existing text claim by claim."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command import option_model
from .completion import complete_model, complete_verifier
from .options import (
    OUTPUT,
    REASONING,
    TESTS_HELP,
    BudgetOptions,
    Json,
    Jurors,
    Store,
    Trace,
    resume_flags,
)

if TYPE_CHECKING:
    from ..agents.verification import TextVerification

EVIDENCE = "Text and evidence"

EXAMPLES = """
[b]Examples[/b]

reason verify --answer answer.txt --docs handbook.pdf --docs notes/
some-model "Who wrote it?" | reason verify --answer - --question "Who wrote it?" --docs report.md
reason verify --answer answer.txt --docs wiki-index -m openai/gpt-4o-mini
reason verify --answer answer.txt --docs notes/ --html checked.html --require-verified
reason verify --answer sums.txt --programs-only
reason verify --answer answer.md --verifier execution --tests tests.py

The verification is written to standard output, everything else to standard error.

[b]Exit status[/b]

0 checked   1 internal error   2 usage error, or an unreadable document   3 judge failure
4 budget exhausted, some claims are unchecked   5 not verified   130 interrupted
"""


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Options of `reason verify`."""

    answer: Annotated[
        Path,
        typer.Option(
            metavar="FILE|-",
            help="Verify this text; - reads standard input.",
            rich_help_panel=EVIDENCE,
        ),
    ]
    question: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Name the question that the text answers.", rich_help_panel=EVIDENCE),
    ] = None
    docs: Annotated[
        list[Path],
        typer.Option(
            metavar="PATH",
            help="Use this evidence: a file or directory of text, Markdown, HTML, JSON or PDF, or an index from "
            "[b]reason index build[/b]. Repeatable.",
            show_default=False,
            rich_help_panel=EVIDENCE,
        ),
    ] = field(default_factory=list)
    programs_only: Annotated[
        bool,
        typer.Option(
            "--programs-only",
            help="Check arithmetic only, without documents.",
            rich_help_panel=EVIDENCE,
        ),
    ] = False
    tests: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=TESTS_HELP, rich_help_panel=EVIDENCE),
    ] = None
    verifier: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Use this verifier; [b]reason verifiers[/b] lists them.",
            autocompletion=complete_verifier,
            rich_help_panel=REASONING,
        ),
    ] = "davinci"
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Judge the evidence with auto, model, base, small, lexical or nli/…; auto is "
            "the model of -m if given, else base if it is on this machine, else small. (default: the verifier's)",
            rich_help_panel=REASONING,
        ),
    ] = None
    parameters: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set a parameter of the verifier; the value is JSON or text. Repeatable.",
            show_default=False,
            rich_help_panel=REASONING,
        ),
    ] = field(default_factory=list)
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="Judge the evidence with this language model, which also splits claims if configured.",
            autocompletion=complete_model,
            rich_help_panel=REASONING,
        ),
    ] = None
    jurors: Jurors = field(default_factory=list)
    require_verified: Annotated[
        bool,
        typer.Option(
            "--require-verified", help="Exit with status 5 unless every claim is supported.", rich_help_panel=REASONING
        ),
    ] = False
    budget: BudgetOptions
    as_json: Json = False
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write an HTML page with the text and the evidence of each claim.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    trace: Trace = None
    store: Store = None


@option_model
def verify(options: VerifyOptions) -> None:
    """Check an existing text against documents, claim by claim."""
    from ..core.errors import NotVerified, UserError
    from ..core.settings import load_settings
    from ..core.verdicts import failure_text
    from .inputs import parse_parameters, read_tests

    text = read_answer(options.answer)
    tests = read_tests(options.tests)
    check_documents(options.answer, options.docs)
    evidence = [str(path.expanduser().absolute()) for path in options.docs]
    parameters = parse_parameters(options.parameters)
    if options.judge is not None:
        if "judge" in parameters:
            raise UserError("--judge and --set judge=… exclude each other", hint="use one of them")
        parameters["judge"] = options.judge
    settings = load_settings(budget=options.budget.limits, store=options.store)
    from ..agents.verification import averify_text
    from .terminal_run import Output
    from .terminal_verification import verify_in_terminal

    with open_page(options.html) as write_page:
        verified = verify_in_terminal(
            lambda progress, sinks: averify_text(
                text,
                question=options.question or "",
                evidence=evidence,
                verifier=options.verifier,
                parameters=parameters,
                settings=settings,
                model=options.model,
                jurors=options.jurors or None,
                programs_only=options.programs_only,
                tests=tests,
                progress=progress,
                sinks=sinks,
            ),
            Output(as_json=options.as_json, trace=options.trace, resume_flags=resume_flags(options.store)),
            settings.budget,
        )
        write_page(verified)
    if options.require_verified and verified.verification.verdict != "supported":
        raise NotVerified(failure_text(verified.verification))
    if any(report.reason == "unchecked" for report in verified.reports):
        raise typer.Exit(4)


def read_answer(path: Path) -> str:
    """The text to verify; `-` is standard input.

    Raises:
        UserError: It is empty.
        DataError: The file cannot be read, is too large or not text.
    """
    from ..core.errors import UserError
    from .inputs import input_name, read_text

    text = read_text(path, "answer file", "--answer")
    if not text.strip():
        raise UserError(f"the answer file {input_name(path)!r} is empty", hint="pass the text to verify")
    return text


def check_documents(answer: Path, paths: Sequence[Path]) -> None:
    """Refuse documents that include the answer.

    Raises:
        UserError: The answer would be its own evidence.
    """
    from ..core.errors import UserError
    from .inputs import STDIN

    if str(answer) == STDIN:
        return
    resolved = answer.expanduser().resolve()
    for path in paths:
        document = path.expanduser().resolve()
        if document == resolved or document in resolved.parents:
            raise UserError(
                f"the answer {str(answer)!r} is part of the documents {str(path)!r} and would support itself",
                hint="move it elsewhere, or name the documents one by one",
            )


@contextmanager
def open_page(path: Path | None) -> Iterator[Callable[[TextVerification], None]]:
    """The writer of the HTML page; fails before the verification if the file is not writable.

    Raises:
        StoreError: The file cannot be written.
    """
    if path is None:
        yield lambda _: None
        return
    _write_page(path, "")

    def write(verified: TextVerification) -> None:
        from ..sidecar.viewer.page import verification_html

        _write_page(path, verification_html(verified))

    yield write


def _write_page(path: Path, text: str) -> None:
    from ..core.errors import StoreError

    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as e:
        raise StoreError(f"cannot write the page to {path}: {e.strerror}", hint="choose another --html") from e
