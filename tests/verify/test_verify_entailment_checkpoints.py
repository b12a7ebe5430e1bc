"""Judges from checkpoints on disk: tiny models with random weights, compared with plain transformers."""
# ruff: noqa: E402

import itertools
import json
import shutil

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sentence_transformers")

from reason.core.errors import DataError
from reason.core.settings import Settings
from reason.verify.entailment.factory import load_entailment
from reason.verify.entailment.windows import DocumentSupport
from reason.verify.types import Entailment, Pair
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

TEXT = "the bridge opened in 1926 1925 was not built of stone steel by anna and ben toll predict : . 0 1"
WORDS = TEXT.split()
NLI = ("contradiction", "entailment", "neutral")
EVIDENCE = [
    "the bridge opened in 1926 .",
    "anna built the toll of steel",
    "ben was not in the bridge",
    "stone and steel .",
]
CLAIMS = ["the bridge opened in 1925", "anna was built of stone", "ben built it"]
PAIRS = [Pair(evidence, claim) for evidence in EVIDENCE for claim in CLAIMS]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def bert(directory, labels, *, seed=1, named=True):
    """A BERT classifier with a vocabulary of 25 words."""
    torch.manual_seed(seed)
    directory.mkdir(parents=True)
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (directory / "vocab.txt").write_text("\n".join(vocab))
    BertTokenizerFast(vocab=str(directory / "vocab.txt"), model_max_length=512).save_pretrained(directory)
    assert len(BertTokenizerFast.from_pretrained(directory)("the toll")["input_ids"]) == 4
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    config = BertConfig(
        vocab_size=len(vocab),
        max_position_embeddings=512,
        initializer_range=0.8,
        num_labels=len(labels),
        **SIZES,
        **(names if named else {}),
    )
    BertForSequenceClassification(config).save_pretrained(directory)
    return directory


def word_tokenizer(directory, *, pair=False):
    """A tokenizer of words in the layout of T5, or of RoBERTa with its beginning of text."""
    special = ["<pad>", "</s>", "<unk>", *(["<s>"] if pair else [])]
    vocab = {token: i for i, token in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if pair else "$A </s>",
        special_tokens=[("</s>", vocab["</s>"]), *([("<s>", vocab["<s>"])] if pair else [])],
    )
    more = {"bos_token": "<s>", "sep_token": "</s>"} if pair else {}
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=512, **more
    )
    made.save_pretrained(directory)
    return len(vocab)


def t5(directory):
    torch.manual_seed(3)
    size = word_tokenizer(directory)
    config = T5Config(
        vocab_size=size,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
        initializer_factor=1.0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    T5ForConditionalGeneration(config).save_pretrained(directory)
    return directory


def roberta(directory):
    torch.manual_seed(4)
    size = word_tokenizer(directory, pair=True)
    config = RobertaConfig(
        vocab_size=size,
        max_position_embeddings=514,
        num_labels=2,
        pad_token_id=0,
        bos_token_id=3,
        eos_token_id=1,
        initializer_range=0.8,
        **SIZES,
    )
    RobertaForSequenceClassification(config).save_pretrained(directory)
    return directory


async def load(prefix, directory, **encoder):
    settings = Settings(cache_dir=directory.parent / "cache", encoders={f"local/{directory}": encoder})
    judge = await load_entailment(f"{prefix}/{directory}", settings)
    assert isinstance(judge, Entailment)
    assert judge.name == f"{prefix}/{directory}" or isinstance(judge, DocumentSupport)
    return judge


def tells_apart(verdicts):
    return len({round(verdict.supports, 4) for verdict in verdicts}) > len(verdicts) // 2


# -- nli/ and cross/: classifiers of two texts


@pytest.mark.parametrize("prefix", ["nli", "cross"])
@pytest.mark.parametrize("labels", list(itertools.permutations(NLI)))
async def test_labels_of_a_checkpoint_are_read_by_name(tmp_path, prefix, labels):
    directory = bert(tmp_path / "nli", labels)
    judge = await load(prefix, directory)
    verdicts = await judge.judge(PAIRS)
    await judge.aclose()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    for pair, verdict in zip(PAIRS, verdicts, strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(pair.evidence, pair.claim, return_tensors="pt")).logits[0]
        expected = dict(zip(labels, logits.softmax(-1).tolist(), strict=True))
        assert verdict == pytest.approx(
            (expected["entailment"], expected["contradiction"], expected["neutral"]), abs=1e-5
        )
    assert tells_apart(verdicts)


async def test_the_only_output_of_a_cross_encoder_is_the_log_odds_of_support(tmp_path):
    directory = bert(tmp_path / "hhem", ["consistency"])
    judge = await load("cross", directory)
    verdicts = await judge.judge(PAIRS)
    await judge.aclose()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    for pair, verdict in zip(PAIRS, verdicts, strict=True):
        with torch.no_grad():
            p = model(**tokenizer(pair.evidence, pair.claim, return_tensors="pt")).logits[0, 0].sigmoid().item()
        assert verdict == pytest.approx((p, 0.0, 1 - p), abs=1e-5)
    assert tells_apart(verdicts)
    with pytest.raises(DataError, match="consistency"):
        await load("nli", directory)


@pytest.mark.parametrize(("prefix", "labels"), [("nli", 3), ("cross", 3), ("nli", 2), ("cross", 2)])
async def test_unnamed_labels_are_refused(tmp_path, prefix, labels):
    directory = bert(tmp_path / "unnamed", range(labels), named=False)
    with pytest.raises(DataError, match="LABEL_0") as refused:
        await load(prefix, directory)
    assert "id2label" in refused.value.hint


async def test_special_tokens_in_the_evidence_are_plain_text(tmp_path):
    """With its own [SEP], evidence could end early and pretend that another claim follows."""
    judge = await load("nli", bert(tmp_path / "nli", NLI))
    attack, harmless, honest = await judge.judge(
        [
            Pair("the bridge opened [SEP] the bridge opened [SEP]", "ben built stone"),
            Pair("the bridge opened [ SEP] the bridge opened [ SEP]", "ben built stone"),
            Pair("the bridge opened", "ben built stone"),
        ]
    )
    await judge.aclose()
    assert attack == pytest.approx(harmless, abs=1e-6)
    assert attack != pytest.approx(honest, abs=1e-4)


# -- minicheck/: support of a claim by a document


def reference_support(directory, pair, *, is_t5):
    """The authors' input: text and claim with the end-of-text token between them."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    joined = f"{pair.evidence}{tokenizer.eos_token or tokenizer.sep_token}{pair.claim}"
    inputs = tokenizer("predict: " + joined if is_t5 else joined, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        if not is_t5:
            model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
            return model(**inputs).logits[0].softmax(-1)[1].item()
        model = AutoModelForSeq2SeqLM.from_pretrained(directory).eval()
        logits = model(**inputs, decoder_input_ids=torch.zeros((1, 1), dtype=torch.long)).logits[0, 0]
        zero, one = (tokenizer(digit, add_special_tokens=False)["input_ids"][0] for digit in "01")
        return logits[[zero, one]].softmax(-1)[1].item()


@pytest.fixture(scope="module", params=["t5", "bert", "roberta"])
def minicheck(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("minicheck") / request.param
    if request.param == "bert":
        return bert(directory, range(2), named=False), False
    return {"t5": t5, "roberta": roberta}[request.param](directory), request.param == "t5"


async def test_minicheck_gives_support_and_never_refutes(minicheck):
    directory, is_t5 = minicheck
    judge = await load("minicheck", directory, batch_texts=5)
    verdicts = await judge.judge(PAIRS)
    await judge.aclose()
    expected = [reference_support(directory, pair, is_t5=is_t5) for pair in PAIRS]
    assert [v.supports for v in verdicts] == pytest.approx(expected, abs=1e-5)
    assert all(v.refutes == 0 and v.neutral == pytest.approx(1 - v.supports) for v in verdicts)
    assert tells_apart(verdicts)


async def test_minicheck_reads_the_title_with_the_text(minicheck):
    directory, is_t5 = minicheck
    judge = await load("minicheck", directory)
    (verdict,) = await judge.judge([Pair("it opened in 1926", "the toll opened", "the toll")])
    await judge.aclose()
    shown = Pair("the toll\nit opened in 1926", "the toll opened")
    assert verdict.supports == pytest.approx(reference_support(directory, shown, is_t5=is_t5), abs=1e-5)


async def test_minicheck_takes_the_chunk_of_a_document_that_supports_most(minicheck):
    directory, _ = minicheck
    judge = await load("minicheck", directory, max_tokens=120)
    sentences = [f"The bridge was built of {w} and steel by anna in {y}." for w in ("stone", "toll") for y in WORDS]
    document = " ".join(sentences)
    (verdict,) = await judge.judge_windows([Pair(document, "anna was built of stone")])
    chunk = document[verdict.start : verdict.end]
    assert 0 < len(chunk) < len(document)
    (alone,) = await judge.judge([Pair(chunk, "anna was built of stone")])
    await judge.aclose()
    assert alone == pytest.approx(verdict.support, abs=1e-6)


async def test_minicheck_cuts_the_text_and_keeps_the_claim(minicheck):
    directory, _ = minicheck
    judge = await load("minicheck", directory, max_tokens=24)
    encoder = judge._entailment._encoder
    logits = await encoder.logits([("the bridge was built of stone " * 20, "anna was not in the bridge")])
    fitting = await encoder.logits([("the bridge was built of stone " * 2, "anna was not in the bridge")])
    ids = encoder._ids("the bridge was built of stone " * 20, "anna was not in the bridge")
    await judge.aclose()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert len(ids) <= 24
    assert tokenizer.decode(ids, skip_special_tokens=True).endswith("anna was not in the bridge")
    assert logits.shape == fitting.shape == (1, 2)


async def test_a_separator_in_the_text_ends_nothing(minicheck):
    directory, _ = minicheck
    judge = await load("minicheck", directory)
    separator = "[SEP]" if directory.name == "bert" else "</s>"
    split = f"{separator[0]} {separator[1:]}"
    texts = [f"the toll {mark} the bridge opened" for mark in (separator, split)]
    attack, harmless = await judge.judge([Pair(text, "ben built stone") for text in texts])
    claim_attack, claim_harmless = await judge.judge([Pair("the toll", text) for text in texts])
    await judge.aclose()
    assert attack == pytest.approx(harmless, abs=1e-6)
    assert claim_attack == pytest.approx(claim_harmless, abs=1e-6)


async def test_minicheck_reads_named_labels_by_name(tmp_path):
    first = bert(tmp_path / "first", ["unsupported", "supported"])
    second = tmp_path / "second"
    shutil.copytree(first, second)
    config = json.loads((second / "config.json").read_text())
    config |= {"id2label": {"0": "supported", "1": "unsupported"}, "label2id": {"supported": 0, "unsupported": 1}}
    (second / "config.json").write_text(json.dumps(config))
    one, two = [await load("minicheck", directory) for directory in (first, second)]
    for a, b in zip(await one.judge(PAIRS), await two.judge(PAIRS), strict=True):
        assert a.supports == pytest.approx(1 - b.supports, abs=1e-6)
    assert one.identity != two.identity
    await one.aclose()
    await two.aclose()


async def test_other_models_are_no_minicheck(tmp_path):
    with pytest.raises(DataError, match="3 outputs") as refused:
        await load("minicheck", bert(tmp_path / "nli", NLI))
    assert "nli/" in refused.value.hint
    directory = t5(tmp_path / "t5")
    config = json.loads((directory / "config.json").read_text()) | {"architectures": ["T5EncoderModel"]}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="T5EncoderModel"):
        await load("minicheck", directory)
    with pytest.raises(DataError, match="no such model directory"):
        await load("minicheck", tmp_path / "missing")
