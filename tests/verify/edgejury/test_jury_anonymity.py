"""Prompts of reviewers and the chair do not reveal who wrote an answer."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.types import Document, Question
from reason.reasoning.anonymity import REMOVED, Roster, Scrubber, make_blinding
from reason.verify.edgejury.chair import chair_prompt
from reason.verify.edgejury.jurors import ROLES, Role
from reason.verify.edgejury.ranking import rank
from reason.verify.edgejury.review import DisplayedAnswers, pool_issues, review_prompt, verified_quotes
from reason.verify.edgejury.types import Issue, Marks, Quote, Review

WIND = Question(text="Which wind blows in Provence?")
ROSTER = Roster(
    models=("local/qwen2.5-coder-0.5b-instruct", "local/smollm2-135m", "openai/gpt-4o", "groq/llama-3.1-8b"),
    jurors=("juror 1", "juror-2", "juror #4"),
    roles=ROLES,
)
SCRUB = Scrubber(ROSTER, WIND).scrub


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("I am Qwen, a large language model created by Alibaba Cloud. It is the Mistral.", "It is the Mistral."),
        ("As an AI language model, i cannot be sure.", "I cannot be sure."),
        ("I'm SmolLM2 and the answer is Mistral.", "The answer is Mistral."),
        ("I was trained by Some Company. It is 5.", "It is 5."),
        ("Well, as an AI, I say Mistral.", "Well, I say Mistral."),
        ("As the edge-case finder, I think so.\n**Concerns:**\n- one\nConcerns: two", "I think so.\n\n- one\ntwo"),
        ("Direct Answerer: It is so.", "It is so."),
        ("**Role: step-by-step explainer**\nIt is so.", "It is so."),
        ("In my role as step by step explainer, we go on.", "We go on."),
        ("My role is to find edge cases. It is so.", "It is so."),
        ("It is so.\n\u2014 Llama 3.1", "It is so."),
        (
            "GPT 4o and gpt-4o and GPT4o and smollm2 agree.",
            f"{REMOVED} and {REMOVED} and {REMOVED} and {REMOVED} agree.",
        ),
        ("Llama 3.1 8B says so, Juror 2 too.", f"{REMOVED} says so, {REMOVED} too."),
        ("Juror #4 says so, juror 4 too.", f"{REMOVED} says so, {REMOVED} too."),
        ("Qw\u200ben2.5 and \U0001d410\U0001d430\U0001d41e\U0001d427\U0001d7d0.\U0001d7d3", f"{REMOVED} and {REMOVED}"),
        ("I am Qwen.", REMOVED),
        ("I am Qwen. I am Qwen. it is 4. As an AI, no.", "It is 4. No."),
        ("I am Qwen. 0 I am Qwen.", "0"),
    ],
)
def test_identifying_text_is_removed(text, left):
    assert SCRUB(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "As a result, the llama eats grass. As the largest planet, Jupiter is heavy.",
        "The answer is Mistral: a direct answer, step by step.",
        "I am made of atoms, and you were taught at home. Concerns were raised.",
        "Juries have twelve jurors; juror 3 spoke. The model was made in Paris.",
        "1. The first step.\n2. The second: 4 + 8 = 12.",
        "- Llama: it eats grass.\n- Falcon: it does not.",
        "Use it as a chatbot if you like; this is an AI system.",
    ],
)
def test_other_text_is_kept(text):
    assert SCRUB(text) == text


def test_names_in_the_question_are_kept():
    asked = Question(
        text="How large is Llama 3.1 8B?", choices=("gpt-4o", "x"), documents=(Document(name="d", text="smollm2-135m"),)
    )
    scrub = Scrubber(Roster(models=("groq/llama-3.1-8b", "a/gpt-4o", "local/smollm2-135m", "b/phi-3")), asked).scrub
    assert scrub("The models gpt-4o, smollm2-135m and phi-3.") == f"The models gpt-4o, smollm2-135m and {REMOVED}."


def test_empty_roster_removes_only_invisible_text():
    assert Scrubber(Roster(), WIND).scrub("It is\u200b so, says GPT-4o.") == "It is so, says GPT-4o."


WORDS = st.text("bcdfgklmnprstvz", min_size=3, max_size=6)
NAMES = st.tuples(WORDS, WORDS, st.integers(1, 99))
SELF_TALK = st.sampled_from([
    "I am {}, a language model. ", "As the {}, I doubt it. ", "{}: ", "My name is {} and I say: ", "{} thinks so. ",
    "\n-- {}\n", "(by {}) ", "**{}**\n", "Speaking as {}, no. ", "I, {}, say no. ",
])  # fmt: skip


@given(st.data())
def test_prompts_name_no_model_juror_or_role(data):
    count = data.draw(st.integers(2, 4))
    names = data.draw(st.lists(NAMES, min_size=3 * count, max_size=3 * count, unique_by=lambda n: n[:2]))
    models = [f"{a}/{b}{number}-{number}b" for a, b, number in names[:count]]
    ids = [f"{a}-{number}" for a, _, number in names[count : 2 * count]]
    roles = [Role(name=f"{a}-{b}", system="Answer.", headings=(f"{b} list",)) for a, b, _ in names[2 * count :]]
    secrets = [*models, *(m.partition("/")[2] for m in models), *ids, *(role.name for role in roles)]
    spelt = st.sampled_from([*secrets, *(s.replace("-", " ") for s in secrets), *(s.upper() for s in secrets)])
    talk = st.builds(lambda template, name: template.replace("{}", name), SELF_TALK, spelt)
    texts = {
        juror: "".join(data.draw(st.lists(st.one_of(talk, st.just("It is 4. ")), min_size=1, max_size=5)))
        for juror in range(count)
    }
    scrub = Scrubber(Roster(tuple(models), tuple(ids), tuple(roles)), WIND).scrub
    shown = {juror: scrub(text) for juror, text in texts.items()}
    prompts = []
    reviews = []
    for reviewer in range(count):
        blind = make_blinding(range(count), WIND, reviewer, exclude=reviewer)
        prompts.append(review_prompt(WIND, shown, blind))
        other = blind.jurors[0]
        reviews.append(
            Review(
                reviewer=reviewer,
                ok=True,
                scores=(Marks(candidate=other, accuracy=5, insight=5, clarity=5),),
                issues=(Issue(candidate=other, kind="unclear", detail=data.draw(talk) + "It is unclear."),),
                keep=(Quote(candidate=other, quote=shown[other]),),
            )
        )
    blind = make_blinding(range(count), WIND, 99)
    quotes = verified_quotes(reviews, shown)
    ranking = rank(reviews, range(count))
    chair = chair_prompt(WIND, DisplayedAnswers(shown, {}), blind, ranking, pool_issues(reviews), quotes, scrub=scrub)
    for prompt in [*prompts, chair]:
        (message,) = prompt.messages
        for secret in secrets:
            for spelling in (secret, secret.replace("-", " ")):
                assert not re.search(rf"(?<!\w){re.escape(spelling)}(?!\w)", message.content, re.IGNORECASE), spelling


@given(st.lists(st.one_of(st.text(max_size=30), st.sampled_from(["GPT-4o", "As an AI, ", "\n"])), max_size=6))
def test_scrubbing_is_idempotent(parts):
    once = SCRUB(" I am Qwen. ".join(parts))
    assert once
    assert "qwen" not in once.casefold()
    assert "gpt-4o" not in once.casefold()
