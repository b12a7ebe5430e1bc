"""`Conclusion`: the answer behind the steps.

A model that thinks between tags goes on behind the closing tag. Any other is asked for the answer in a few tokens,
unless the steps state it and were written by who is to give it.

Source: Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110, for thoughts: the steps up to the closing tag, the tag again,
and the large model goes on. Kojima et al. 2022, arXiv:2205.11916, for the words behind steps without tags.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..core.answer import Candidate, Step
from ..core.errors import LimitExceeded
from ..core.messages import Completion, FinishReason, Request, Sampling
from ..core.question import Question
from ..reasoning.candidates import read_candidate
from ..reasoning.prompts import therefore
from .pen import Pen
from .step_rules import CUT, SEPARATOR, Transcript, Writer

CONCLUDE_TOKENS = 32
"""Most tokens of an answer behind steps without tags."""


class Conclusion:
    """The answer to one question.

    Args:
        transcript: The steps.
        question: What is answered.
        pens: The models.
        opening: What stands before the steps in the reply.
        temperature: Sampling temperature of an answer behind thoughts; behind steps without tags it is greedy.
        top_p: Nucleus mass of it.
        answer_tokens: Most tokens of it.
    """

    def __init__(
        self,
        transcript: Transcript,
        question: Question,
        pens: Mapping[Writer, Pen],
        *,
        opening: str,
        temperature: float,
        top_p: float,
        answer_tokens: int,
    ) -> None:
        self._transcript, self._question, self._pens = transcript, question, pens
        self._opening, self._temperature, self._top_p = opening, temperature, top_p
        self._answer_tokens = answer_tokens

    @property
    def stated(self) -> bool:
        """Whether the last step states the answer; never where thoughts are apart from it."""
        transcript = self._transcript
        return bool(transcript.steps) and not transcript.close_tag and transcript.states_answer(self._question)

    async def ask(self, writer: Writer) -> Completion:
        """Have a model answer; the text that comes back begins with the steps.

        Args:
            writer: Which one.

        Raises:
            LimitExceeded: Neither budget nor context have room for it.
            BackendError: The model failed.
        """
        pen, tag, transcript = self._pens[writer], self._transcript.close_tag, self._transcript
        if tag:
            thoughts = transcript.thoughts
            before = f"{thoughts}{'' if not thoughts or thoughts.endswith(chr(10)) else chr(10)}{tag}{SEPARATOR}"
        else:
            before = "".join([transcript.context, therefore(self._question)])
        prompt = pen.prompt_after(before)
        most = pen.room(self._answer_tokens if tag else CONCLUDE_TOKENS, transcript.tokens)
        if most < 1:
            raise LimitExceeded("tokens", transcript.tokens, transcript.tokens)
        sampling = Sampling(
            temperature=self._temperature if tag else 0.0,
            top_p=self._top_p if tag else 1.0,
            max_tokens=most,
            stop=() if tag else ("\n",),
            seed=pen.steps.seed(prompt),
            logprobs=False,
        )
        ((_, (reply,)),) = await pen.ask(
            "answer", [Request(prompt=prompt, sampling=sampling)], written=transcript.tokens, last=True
        )
        said = reply.text if tag else reply.text.partition("\n")[0]
        whole = before + said if tag or said.strip() else transcript.joined
        return reply.model_copy(update={"text": self._opening + whole})

    def candidate(self, reply: Completion | None) -> Candidate | None:
        """The steps with the answer behind them, or with what they state themselves; None if there is nothing.

        Args:
            reply: The answer, as `ask` gave it.
        """
        steps = self._transcript.steps
        if reply is None and not steps:
            return None
        whole = self._unanswered() if reply is None else reply
        read = read_candidate(whole.model_copy(update={"logprobs": None}), self._question)
        return read.model_copy(
            update={
                "steps": tuple(
                    Step(
                        text=step.text,
                        model=self._pens[step.writer].model.name,
                        scores={
                            name: value
                            for name, value in (("entropy", step.entropy), ("score", step.score))
                            if value is not None
                        },
                    )
                    for step in steps
                ),
                "tokens": self._transcript.tokens + (0 if reply is None else reply.usage.completion_tokens),
            }
        )

    def _unanswered(self) -> Completion:
        ended = self._transcript.steps[-1].ended
        reason: FinishReason = "budget" if ended == "budget" else "length" if ended in CUT else "stop"
        return Completion(text=self._opening + self._transcript.joined, finish_reason=reason)
