"""A run store in a process of its own, which does what it is told; to be killed, or to compete with."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import textwrap

_PROGRAM = textwrap.dedent("""
    import asyncio, json, sys
    from reason.core.budget import Budget
    from reason.core.errors import ReasonError
    from reason.core.store import open_store
    from reason.core.store.protocol import KeyLimits, Spending, StoredCall

    def call(key):
        response = {"text": key, "usage": {"completion_tokens": 1, "cost_usd": 0.0}}
        return StoredCall(key=key, role="main", model="m", request={}, response=response)

    async def main():
        store = await open_store(sys.argv[1])
        print("open", flush=True)
        for line in sys.stdin:
            name, *given = json.loads(line)
            try:
                if name == "add":
                    await store.add_calls(given[0], [call(key) for key in given[1]])
                elif name == "add for ever":
                    number = 0
                    while True:
                        await store.add_calls(given[0], [call(f"{number}-{i}") for i in range(given[1])])
                        number += 1
                        print(number, flush=True)
                elif name == "reserve":
                    budget, limits = Budget(tokens=given[1]), KeyLimits(tokens_per_day=given[1])
                    await store.reserve_spending(given[0], "t", budget, limits, 0.0)
                elif name == "adopt":
                    await store.claim_run(given[0], adopting=True)
                elif name == "create":
                    await store.create_run(given[0], {}, **given[1])
                else:
                    await getattr(store, name)(*given)
                print(json.dumps("done"), flush=True)
            except ReasonError as e:
                print(json.dumps(f"{type(e).__name__}: {e.message}"), flush=True)

    asyncio.run(main())
""")


class StoreProcess:
    """The process; `async with` kills it in the end."""

    def __init__(self, place: str) -> None:
        self._place = place

    async def __aenter__(self) -> StoreProcess:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROGRAM, self._place, stdin=pipe, stdout=pipe
        )
        assert await self.line() == "open"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, *words: object) -> None:
        """Have it do something: name of a store's method and its arguments, or one of its own words."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")

    async def line(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    async def ask(self, *words: object) -> str:
        """Have it do something: "done", or what it was refused with."""
        self.tell(*words)
        return str(json.loads(await self.line()))

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
