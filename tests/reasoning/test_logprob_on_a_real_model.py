"""The strategy `logprob` on real weights against transformers, which computes each text without a cache."""

import pytest
from reason import Reasoner, Settings
from reason.core.settings import LocalSettings
from reason.reasoning.logprob import PROMPTS

pytestmark = pytest.mark.real

QUESTION = "What do bees make?"
CHOICES = ("Honey.", "Bees make honey and wax", "They make nothing at all.", "Milk — in their hives!")


@pytest.fixture
def expected(smollm2_files):
    """Summed log-probability of each choice after the six examples, in nats."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2_files.directory)
    model = transformers.AutoModelForCausalLM.from_pretrained(smollm2_files.directory, dtype=torch.float32)
    prompt = PROMPTS["truthfulqa"].replace("{question}", QUESTION)
    length = len(tokenizer(prompt)["input_ids"])
    sums = []
    for choice in CHOICES:
        ids = torch.tensor([tokenizer(f"{prompt} {choice}")["input_ids"]])
        with torch.inference_mode():
            logprobs = model(ids).logits[0, :-1].log_softmax(-1)
        picked = logprobs.gather(1, ids[0, 1:, None])[:, 0]
        sums.append(float(picked[length - 1 :].sum()))
    torch.set_num_threads(before)
    return sums


@pytest.mark.nightly
async def test_choices_have_the_log_probability_that_the_weights_give(tmp_path, smollm2_files, expected):
    settings = Settings(
        model=f"local/{smollm2_files.directory}",
        store=tmp_path / "runs.sqlite3",
        cache_dir=tmp_path / "cache",
        local=LocalSettings(weight_format="fp32", threads=1),
    )
    async with Reasoner(strategy="logprob", parameters={"prompt": "truthfulqa"}, settings=settings) as reasoner:
        first = await reasoner.aask(QUESTION, choices=CHOICES)
        again = await reasoner.aask(QUESTION, choices=CHOICES)  # now from the cache
    for answer in (first, again):
        assert [c.logprob for c in answer.candidates] == pytest.approx(expected, abs=1e-3)
        assert answer.answer == "ABCD"[max(range(4), key=expected.__getitem__)]
        assert answer.usage.completion_tokens == 0
