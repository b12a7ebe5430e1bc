"""Real clients against a server with the embedded model: responses match the run store."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from reason.core.settings import Settings, load_settings
from support.sidecar_server import serving

pytestmark = pytest.mark.real

QUESTION = "Tom has 3 apples and buys 2 more. How many apples has he?"

TASK = """
task: gsm_like
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["Question:"], do_sample: false, temperature: 0.0, max_gen_toks: 24}}
filter_list:
  - name: strict-match
    filter: [{{function: regex, regex_pattern: "(\\\\-?[0-9]+)"}}, {{function: take_first}}]
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""


@pytest.fixture(scope="module")
def server(smollm2_files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedded")
    options = {"auth": False, "drain_timeout_s": 0.0}
    chosen = Settings(store=folder / "runs.sqlite3", cache_dir=load_settings().cache_dir, serve=options)
    with serving(chosen) as running:
        yield running


@pytest.mark.nightly
def test_lm_eval(server, tmp_path):
    rows = tmp_path / "rows.jsonl"
    asked = [(QUESTION, "5"), ("Ann has 4 pens and loses 1. How many pens has she?", "3")]
    rows.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in asked))
    (tmp_path / "gsm_like.yaml").write_text(TASK.format(rows=rows))
    address = f"model=reason/cot,base_url={server.url}/v1/chat/completions,num_concurrent=2,max_retries=1"
    options = ["--tasks", "gsm_like", "--include_path", str(tmp_path), "--apply_chat_template", "--log_samples"]
    harness = [sys.executable, "-m", "lm_eval", "--model", "local-chat-completions", "--model_args", address]
    ran = subprocess.run(
        [*harness, *options, "--output_path", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=240,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    (log,) = (tmp_path / "out").rglob("samples_*.jsonl")
    samples = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(samples) == len(asked)
    store = server.run_manager.store
    runs = [server.call(store.get_run(run.id)) for run in server.call(store.list_runs(limit=2))]
    texts = {run.config["question"]["text"]: run.answer["text"].strip() for run in runs}
    assert {s["doc"]["question"]: s["resps"][0][0] for s in samples} == texts
    right = [(re.findall(r"-?[0-9]+", texts[q]) or [""])[0] == a for q, a in asked]
    (found,) = (tmp_path / "out").rglob("results_*.json")
    told = json.loads(found.read_text())["results"]["gsm_like"]["exact_match,strict-match"]
    assert told == pytest.approx(sum(right) / len(right))
