"""The answer that is asked for where workers found none.

Source: Rodionov et al. 2025, Hogwild! Inference, arXiv:2504.06261: the transcript as plain text, a sentence that time
is over, and an open box. The text is read anew then: what the workers had computed belongs to their own views.
"""

from __future__ import annotations

from ...core.errors import ContextTooLong, LimitExceeded
from ...core.messages import Prompt, Request, Sampling
from ...core.question import Question
from ...core.run import Run
from ...serving.metered import MeteredModel
from ..answers import extract
from .team import Team
from .wording import OUT_OF_TIME, PAST


async def finish(
    prompt: Prompt, team: Team, question: Question, model: MeteredModel, run: Run, most_tokens: int
) -> tuple[str, str | None]:
    """Ask for the answer.

    Args:
        prompt: What the workers read first.
        team: Their texts.
        question: What is asked.
        model: Who is asked; it can be given the beginning of its reply.
        run: The run.
        most_tokens: Most tokens of the answer.

    Returns:
        The transcript with the answer behind it, and the answer; None if there is none to be read, or none could be
        asked for.
    """
    transcript = team.transcript()
    given = f"{PAST}{transcript}\n\n{OUT_OF_TIME}"
    sampling = Sampling(temperature=0.0, max_tokens=most_tokens, stop=("\n",))
    asked = Request(prompt=prompt.model_copy(update={"prefix": given}), sampling=sampling)
    try:
        ((reply,),) = await model.generate([asked])
    except LimitExceeded as e:
        run.note_limit(e)
        return transcript, None
    except ContextTooLong:
        return transcript, None
    boxed = OUT_OF_TIME[OUT_OF_TIME.index("\\boxed") :] + reply.text
    found = extract(boxed, question)
    return f"{transcript}\n\n{OUT_OF_TIME}{reply.text}", None if found is None or found.how != "boxed" else found.value
