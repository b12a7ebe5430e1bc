"""An MCP server written out, without the SDK, that starts at once and breaks on demand.

    python mcp_raw_server.py [MODE] [FILE]

MODE is "good"; "dies": in the midst of its first question, and is "good" once FILE exists; "mute": never says a word;
"garbage": speaks no MCP; "crash": ends at once, with a last word.
"""

import json
import os
import sys

FACTS = {"moon": ["The Moon is far.", "The Moon is round."], "sun": ["The Sun is hot."]}
TEXT = {"type": "string"}
TOOLS = [
    {"name": "lookup", "inputSchema": {"type": "object", "properties": {"query": TEXT}, "required": ["query"]}},
    {"name": "shout", "inputSchema": {"type": "object", "properties": {"loud": TEXT}, "required": ["loud"]}},
]


def answered(method, asked, died):
    """The result of a request; None for one that hangs; an exception for one that is not known."""
    if method == "initialize":
        about = {"name": "plain", "version": "1"}
        return {"protocolVersion": asked["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": about}
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call":
        query = asked["arguments"].get("query", "")
        if died and not os.path.exists(died):
            open(died, "w").close()
            os._exit(3)
        if query == "hang":
            return None
        facts = [fact for word, facts in FACTS.items() if word in query for fact in facts]
        return {"content": [{"type": "text", "text": fact} for fact in facts], "isError": False}
    raise LookupError(method)


def main():
    mode = sys.argv[1] if len(sys.argv) > 1 else "good"
    if mode == "crash":
        sys.exit("starting\nthe license has expired\n")
    while mode == "garbage":
        sys.stdout.write("this is no MCP\n" * 1000)
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request or mode == "mute":
            continue
        reply = {"jsonrpc": "2.0", "id": request["id"]}
        try:
            result = answered(request["method"], request.get("params") or {}, sys.argv[2] if mode == "dies" else "")
        except LookupError as e:
            reply["error"] = {"code": -32601, "message": f"no method {e}"}
        else:
            if result is None:
                continue
            reply["result"] = result
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
