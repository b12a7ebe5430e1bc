"""An MCP server of tools, written out without the SDK, that starts at once; it logs what reaches it.

    python mcp_tool_server.py LOG

`look` reads, `change` writes and takes a key, `slow` reports progress and hangs until it is cancelled, `picture`
returns an image, `large` a megabyte, `fail` an error. An argument x of 99 ends the process, at the first call with it.
"""

import json
import os
import sys
from pathlib import Path

X = {"x": {"type": "integer"}}
KEY = {"idempotency_key": {"type": "string"}}


def tool(name, properties=X, **hints):
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": f"Tool {name}.", "inputSchema": schema, "annotations": hints}


TOOLS = [
    tool("look", readOnlyHint=True),
    tool("change", {**X, **KEY}),
    tool("slow", {}, readOnlyHint=False, idempotentHint=True),
    tool("picture", {}, readOnlyHint=True),
    tool("large", {}, readOnlyHint=True),
    tool("fail", {}),
]


def text(value, **more):
    return {"content": [{"type": "text", "text": value}], "isError": False, **more}


def send(**message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def call(log, name, arguments, meta):
    """The result of a call; None for one that hangs."""
    with log.open("a") as file:
        file.write(f"{name} {' '.join(map(str, arguments.values()))}".strip() + "\n")
    if arguments.get("x") == 99 and log.read_text().count(f"{name} 99") == 1:
        os._exit(1)
    if name == "slow":
        progress = {"progressToken": meta["progressToken"], "progress": 1, "total": 2}
        send(method="notifications/progress", params=progress)
        return None
    if name == "picture":
        image = {"type": "image", "data": "aGk=", "mimeType": "image/png"}
        return {"content": [{"type": "text", "text": "see"}, image], "isError": False}
    if name == "fail":
        return text("no such thing", isError=True)
    return text("x" * 1_000_000 if name == "large" else f"{name} {arguments['x']}")


def main():
    log = Path(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        method, params = request["method"], request.get("params") or {}
        if method == "notifications/cancelled":
            with log.open("a") as file:
                file.write("cancelled\n")
        if "id" not in request:
            continue
        if method == "initialize":
            about = {"name": "tools", "version": "1"}
            version = params["protocolVersion"]
            result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}
        elif method == "tools/list":
            result = {"tools": TOOLS}
        elif method == "tools/call":
            result = call(log, params["name"], params["arguments"], params.get("_meta"))
        else:
            send(id=request["id"], error={"code": -32601, "message": f"no method {method}"})
            continue
        if result is not None:
            send(id=request["id"], result=result)


if __name__ == "__main__":
    main()
