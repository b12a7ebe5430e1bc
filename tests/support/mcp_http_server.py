"""An MCP server of the official SDK over streamable HTTP, at a listening socket that it inherits.

    python mcp_http_server.py FD LOG [sessions]

It prints a line when it can be called, and logs calls. `look` reads, `change` writes; an argument x of 99 ends the
process in the middle of the call. With "sessions", it speaks only the protocol's versions with sessions, which a new
process does not know.
"""

import os
import socket
import sys
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.responses import Response


class AnnouncedServer(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        sys.stdout.write("ready\n")
        sys.stdout.flush()


def main():
    log = Path(sys.argv[2])
    server = MCPServer("tools")

    def called(name, x):
        with log.open("a") as file:
            file.write(f"{name} {x}\n")
        if x == 99:
            os._exit(1)
        return f"{name} {x}"

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    async def look(x: int) -> str:
        return called("look", x)

    @server.tool()
    async def change(x: int) -> str:
        return called("change", x)

    app = server.streamable_http_app()

    async def with_sessions(scope, receive, send):
        version = dict(scope.get("headers", ())).get(b"mcp-protocol-version", b"").decode()
        chosen = Response(status_code=400) if version in MODERN_PROTOCOL_VERSIONS else app
        await chosen(scope, receive, send)

    config = uvicorn.Config(with_sessions if "sessions" in sys.argv else app, log_level="error")
    AnnouncedServer(config).run([socket.socket(fileno=int(sys.argv[1]))])


if __name__ == "__main__":
    main()
