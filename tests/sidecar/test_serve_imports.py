"""What a server of a provider's model imports: none of the libraries for other models, verification or training."""

import asyncio
import json
import sys

from support.fault_server import FaultServer
from support.scripted_model import ScriptedModel, replies

HEAVY = {
    "datasets",
    "faiss",
    "langchain_core",
    "langgraph",
    "litellm",
    "matplotlib",
    "openai",
    "pandas",
    "scipy",
    "sentence_transformers",
    "sklearn",
    "sympy",
    "tiktoken",
    "torch",
    "transformers",
    "vllm",
}
SCRIPT = """
import json, os, signal, sys, threading, urllib.request
import reason.cli.serve
from reason.cli.main import main


def imported():
    return sorted({name.partition(".")[0] for name in sys.modules})


def ask(address):
    body = {"model": "reason/cot", "messages": [{"role": "user", "content": "colour?"}]}
    request = urllib.request.Request(
        address + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        reply = json.load(urllib.request.urlopen(request, timeout=60))
        text = reply["choices"][0]["message"]["content"]
        print(json.dumps({"started": started, "text": text, "answered": imported()}))
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def ready(settings, address):
    started.extend(imported())
    threading.Thread(target=ask, args=(address,)).start()


started = []
reason.cli.serve._say_ready = ready
sys.exit(main(["serve", "--port", "0", "--no-auth"]))
"""


async def test_a_server_of_a_providers_model_imports_nothing_heavy(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    async with FaultServer(ScriptedModel(replies("blue")), vllm=False).run() as base:
        (tmp_path / "reason.toml").write_text(
            f'model = "openai/small"\nstore = "{tmp_path / "runs.sqlite3"}"\n[providers.openai]\napi_base = "{base}"\n',
            encoding="utf-8",
        )
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SCRIPT, cwd=tmp_path, stdout=pipe, stderr=pipe
        )
        out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, err.decode()
    report = json.loads(out)
    assert report["text"] == "blue"
    assert HEAVY & set(report["started"]) == set()
    assert HEAVY & set(report["answered"]) == set()
