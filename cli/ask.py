"""`reason ask`: answer a question."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from .command import option_model
from .completion import complete_verifier
from .options import (
    REASONING,
    TESTS_HELP,
    VERIFICATION,
    AnswerOptions,
    BudgetOptions,
    ReasoningOptions,
    ToolOptions,
)

EXAMPLES = """
[b]Examples[/b]

reason ask "What is the capital of France?"
reason ask "What is 17 * 23?" -s self-consistency --set n=16
reason ask "Which is a prime?" --choices "21|23|25" --json
reason ask "Who wrote the install guide?" -s coat --context docs/
reason ask "What does the sign say?" --attach sign.jpg -m openai/gpt-4o-mini
reason ask "Can you see the Great Wall from space?" -s edgejury --juror MODEL_A --juror MODEL_B
reason ask "Write is_prime(n) in Python." --verify execution --tests tests.py
cat report.txt | reason ask "What was decided?" --context -
reason ask "When was it founded?" --context about.md --verify davinci --evidence archive/
reason ask "What changed in the last release?" --tool documents --context docs/ --tool python
reason ask "What time is it in Tokyo?" --mcp "uvx mcp-server-time"
reason ask - --budget tokens=2000 --trace trace.html < question.txt

The answer is written to standard output, everything else to standard error.

[b]Exit status[/b]

0 answered   1 internal error   2 usage error   3 failure of a model or store
4 budget exhausted, the answer is partial   5 not verified   6 no answer
7 waiting for decisions about tool calls   130 interrupted

[b]Keys[/b]

a: answer now, from what the run has   Ctrl-C: stop, and save the run
"""


@dataclass(frozen=True, kw_only=True)
class AskOptions:
    """Options of `reason ask`."""

    question: Annotated[str, typer.Argument(metavar="QUESTION", help="Question; - reads standard input.")]
    reasoning: ReasoningOptions
    context: Annotated[
        list[str],
        typer.Option(
            metavar="FILE|DIR|…",
            help="Add a text file to the prompt (- is standard input), or a knowledge source for coat and rag: DIR or "
            "mcp:COMMAND. With [b]--tool documents[/b], let the model search all of them instead. Repeatable.",
            show_default=False,
            rich_help_panel=REASONING,
        ),
    ] = field(default_factory=list)
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Let coat and rag read, and coat extend, this memory; see [b]reason memory[/b].",
            rich_help_panel=REASONING,
        ),
    ] = None
    attachments: Annotated[
        list[Path],
        typer.Option(
            "--attach",
            metavar="FILE",
            help="Attach an image (PNG, JPEG, GIF, WebP) or PDF, for a model that takes it. Repeatable.",
            show_default=False,
            rich_help_panel=REASONING,
        ),
    ] = field(default_factory=list)
    choices: Annotated[
        str | None,
        typer.Option(
            metavar="A|B|C",
            help="Ask for one of these choices; the answer is a letter.",
            rich_help_panel=REASONING,
        ),
    ] = None
    tests: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=TESTS_HELP, rich_help_panel=VERIFICATION),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Set the random seed; the same seed gives the same answer. (default: random, recorded with the run)",
            rich_help_panel=REASONING,
        ),
    ] = None
    verifiers: Annotated[
        list[str],
        typer.Option(
            "--verify",
            metavar="NAME",
            help="Verify the answer with this verifier; [b]reason verifiers[/b] lists them. Repeatable.",
            autocompletion=complete_verifier,
            show_default=False,
            rich_help_panel=VERIFICATION,
        ),
    ] = field(default_factory=list)
    verifier_parameters: Annotated[
        list[str],
        typer.Option(
            "--verify-set",
            metavar="NAME.KEY=VALUE",
            help="Set a parameter of a verifier; see [b]reason verifiers show NAME[/b]. Repeatable.",
            show_default=False,
            rich_help_panel=VERIFICATION,
        ),
    ] = field(default_factory=list)
    evidence: Annotated[
        list[Path],
        typer.Option(
            metavar="PATH",
            help="Add evidence for the verifiers to the files of --context: a file, directory or saved index. "
            "Repeatable.",
            show_default=False,
            rich_help_panel=VERIFICATION,
        ),
    ] = field(default_factory=list)
    repairs: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=10,
            metavar="N",
            help="Return an answer that fails verification to the strategy with the report, at most N times. "
            "(default: 1)",
            rich_help_panel=VERIFICATION,
        ),
    ] = None
    require_verified: Annotated[
        bool,
        typer.Option(
            "--require-verified",
            help="Exit with status 5 unless the verifiers support the answer.",
            rich_help_panel=VERIFICATION,
        ),
    ] = False
    tools: ToolOptions
    budget: BudgetOptions
    answer: AnswerOptions


@option_model
def ask(options: AskOptions) -> None:
    """Answer a question."""
    from ..core.errors import UserError
    from ..core.settings import load_settings
    from ..core.types import Question
    from .inputs import (
        STDIN,
        check_one_stdin,
        parse_choices,
        parse_verifier_parameters,
        read_attachments,
        read_contexts,
        read_question,
        read_tests,
        split_contexts,
    )

    reasoning = options.reasoning
    check_one_stdin([options.question == STDIN, *(value == STDIN for value in options.context)])
    tools = options.tools.specs or load_settings().tools.use
    files, sources = ([], options.context) if "documents" in tools else split_contexts(options.context)
    question = read_question(options.question)
    choices = parse_choices(options.choices)
    arguments = reasoning.arguments
    verifier_parameters = parse_verifier_parameters(options.verifier_parameters)
    documents = read_contexts(files)
    tests = read_tests(options.tests)
    attachments = read_attachments(options.attachments)
    if options.evidence and not options.verifiers and not load_settings().verify:
        raise UserError("--evidence is used by verifiers, and no verifier is set", hint="add --verify davinci")
    settings = load_settings(
        **reasoning.settings,
        verify=tuple(options.verifiers) or None,
        evidence=tuple(str(path.expanduser().absolute()) for path in options.evidence) or None,
        repairs=options.repairs,
        seed=options.seed,
        budget=options.budget.limits,
        store=options.answer.store,
    )

    from ..agents.reasoner import Reasoner
    from .approvals import TerminalApprover, can_ask
    from .terminal_run import Output, answer_in_terminal

    approver = TerminalApprover() if tools and can_ask() else None
    answer_in_terminal(
        lambda progress: Reasoner(
            **arguments,
            require_verified=options.require_verified,
            verify_parameters=verifier_parameters,
            context=sources or None,
            memory=options.memory,
            tools=tools,
            **options.tools.arguments,
            approver=approver,
            settings=settings,
            progress=progress,
        ),
        lambda reasoner, sinks, stream_text: reasoner.aask(
            Question(text=question, tests=tests, attachments=attachments),
            choices=choices,
            documents=documents,
            sinks=sinks,
            stream_text=stream_text,
        ),
        Output.of(options.answer),
        settings.budget,
        approver,
    )
