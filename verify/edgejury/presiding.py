"""Stage 3: the chair makes one answer of the opinions and of what the reviewers said, and may be asked to think again.

One request; one more where its reply holds no answer; after that the best opinion stands in, which is not decided here.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 3; see `chairing` for what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ...core.messages import Message, Prompt, Request
from ...core.question import Question
from ...core.run import Run
from ...reasoning.brains.quoting import plain
from ...reasoning.fitting import fit
from ...serving.metered import MeteredModel
from .asking import MOST_REPLY_CHARS, Asked
from .blinding import blinding
from .chair_reading import read_chair
from .chairing import chair_repair, chair_request
from .config import JuryConfig
from .cross_review import Shown
from .opinions import ClaimLabel, KeptQuote, PooledIssue, Ranking, Synthesis
from .option_orders import option_orders, own_order
from .panel import Panel
from .panel_round import Ask

_CHAIR = 0
"""The chair's number in its own stage."""


class Chair:
    """The chair of one jury.

    Args:
        model: Its model.
        question: The question in its own order.
        answers: The opinions, scrubbed.
        scrub: Takes out of reviewers' words what tells who wrote them.
        config: Parameters.
        run: The run.
    """

    def __init__(
        self,
        model: MeteredModel,
        question: Question,
        answers: Shown,
        scrub: Callable[[str], str],
        config: JuryConfig,
        run: Run,
    ) -> None:
        self._model, self._question, self._answers, self._scrub = model, question, answers, scrub
        self._config, self._run = config, run
        self._begin = model.capabilities.prefix
        # letters and orders of its own, so that no letter that a reviewer wrote tells it whose answer is whose
        seed = run.derive_seed("edgejury", "chair")
        self._blind = blinding(tuple(answers.texts), question, seed, shuffle=config.shuffle)
        permuted = config.permute_choices and bool(question.choices)
        self._order = option_orders(question, 1, seed)[0] if permuted else own_order(question)
        self._seen = self._order.shown(question) if question.choices else question
        self._asked: Asked | None = None

    async def answer(
        self, panel: Panel, ranking: Ranking, issues: Sequence[PooledIssue], quotes: Sequence[KeptQuote]
    ) -> Synthesis | None:
        """The final answer; None if there is none that can be read.

        Args:
            panel: The stage.
            ranking: How the reviewers rank the opinions.
            issues: What they find wrong.
            quotes: What they want kept.
        """

        def asked(texts: Sequence[str]) -> Asked:
            return chair_request(
                self._seen,
                self._answers.as_seen(self._blind, texts, self._question, self._order),
                self._blind,
                ranking,
                issues,
                quotes,
                scrub=self._told,
                form=self._config.form,
                begin=self._begin,
                held=self._model.capabilities.json_schema,
            )

        texts = [self._answers.texts[juror] for juror in self._blind.jurors]
        tokens = self._config.chair_tokens
        prompt, kept = await fit(self._model, self._run, lambda cut: asked(cut).prompt, texts, tokens)
        if kept is not None:
            self._run.degrade(f"the answers do not fit the chair's context: it saw {kept} characters of each")
        if prompt is None:
            return None
        return await self._read(replace(asked(texts), prompt=prompt), panel, issues)

    async def answer_again(
        self, panel: Panel, before: Synthesis, lines: Sequence[str], issues: Sequence[PooledIssue]
    ) -> Synthesis | None:
        """Another answer, with what the chair is told of its last one; None if there is none that can be read.

        Args:
            panel: The stage.
            before: What it answered.
            lines: What it is told.
            issues: The issues that it was shown.
        """
        if self._asked is None:
            return None
        request = "\n".join([*lines, "Write the final answer once more, whole and in the same form."])
        said = Message(role="assistant", content=plain(self._told(before.answer), MOST_REPLY_CHARS))
        turns = (*self._asked.prompt.messages, said, Message(role="user", content=request))
        prompt = Prompt(messages=turns).with_prefix(self._asked.opening)
        again = await self._read(replace(self._asked, prompt=prompt), panel, issues)
        return None if again is None else again.model_copy(update={"tokens": before.tokens + again.tokens})

    def on_issues(self, passed_over: Sequence[int]) -> list[str]:
        """What a chair is told that passed over issues, by their positions in the list that it was shown."""
        numbers = ", ".join(str(number + 1) for number in passed_over)
        which = f"issue {numbers}" if len(passed_over) == 1 else f"the issues {numbers}"
        return [f"You said nothing of {which}. Say what you did about it, or why it does not hold."]

    def on_claims(self, labels: Sequence[ClaimLabel]) -> list[str]:
        """What a chair is told whom the jurors contradict."""
        contradicted = [label.claim.text for label in labels if label.label == "contradicted"]
        return [
            "These statements of your answer are contradicted by most of the answers that speak of them:",
            *(f"- {plain(self._told(text))}" for text in contradicted),
            "Look at each again: correct it, leave it out, or keep it where you are sure that the others are wrong.",
        ]

    async def _read(self, asked: Asked, panel: Panel, issues: Sequence[PooledIssue]) -> Synthesis | None:
        self._asked = asked
        tokens = 0
        for attempt in range(2):
            (reply,) = await panel.ask([self._ask(asked)])
            tokens += reply.tokens
            if not reply.ok:
                return None
            said = asked.opening + reply.text
            order = self._order if self._question.choices else None
            read = read_chair(said, self._question, self._blind, form=asked.form, order=order)
            if read is not None:
                return read.model_copy(update={"tokens": tokens, "latency_ms": reply.latency_ms})
            if attempt or panel.over:
                break
            asked = chair_repair(asked, said, self._seen, issues, begin=self._begin)
        return None

    def _ask(self, asked: Asked) -> Ask:
        config = self._config
        sampling = asked.sampling(config.chair_temperature, config.chair_tokens)
        return Ask(_CHAIR, self._model, Request(prompt=asked.prompt, sampling=sampling))

    def _told(self, text: str) -> str:
        """A text as the chair is to see it."""
        shown = self._scrub(text)
        return self._order.tell(shown, self._question) if self._question.choices else shown
