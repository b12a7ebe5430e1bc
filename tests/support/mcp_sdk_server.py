"""An MCP server of the official SDK with tools that know a few facts; as a program it speaks over standard streams."""

from __future__ import annotations

import sys

from mcp.server.mcpserver import MCPServer

FACTS = {"moon": ["The Moon is far.", "The Moon is round."], "sun": ["The Sun is hot."]}


def facts_server():
    server = MCPServer("facts")

    @server.tool()
    def lookup(query: str, limit: int = 10) -> list[str]:
        """Facts about something."""
        if query == "fail":
            raise ValueError("the facts are locked\nsecond line")
        return [fact for word, facts in FACTS.items() if word in query for fact in facts][:limit]

    @server.tool()
    def structured(topic: str, context: str) -> dict:
        """Facts with their sources."""
        return {"snippets": [{"text": f"{topic} in {context}", "source_id": "book, page 5", "score": 0.5}]}

    @server.tool()
    def plain(topic: str) -> str:
        """One text."""
        return {
            "json": '{"snippets": [{"text": "from JSON", "source_id": "j"}]}',
            "member": '{"text": "a member", "source_id": "m"}',
            "odd": "[1, 2",
        }.get(topic, topic)

    @server.tool()
    def add(a: int, b: int) -> int:
        """No brain."""
        return a + b

    return server


if __name__ == "__main__":
    sys.stderr.write("noise\n" * 20_000)  # more than a pipe holds: somebody must read it
    facts_server().run()
