"""The tool `shell`: commands that can change one directory, isolated like the sandbox of `reasoning.execution`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ..agents.loop.tool import ExecutableTool, ToolResult, tool_of
from ..core.errors import UserError
from ..reasoning.execution.sandbox import SandboxLimits, require_sandbox, run_command

LIMITS = SandboxLimits(
    wall_seconds=120.0, total_seconds=120.0, output_bytes=1 << 24, shown_bytes=100_000, directory_bytes=1 << 30
)


async def shell_tool(directory: str = "") -> ExecutableTool:
    """The tool `shell` in a directory; empty is the working directory.

    Raises:
        UserError: It is no directory, or one that holds the system's or a user's files.
        SandboxUnavailable: No isolation can be had here.
    """
    path = await asyncio.to_thread(_checked, directory or ".")
    await require_sandbox()

    async def shell(command: str) -> ToolResult:
        """Run a command with sh in the user's directory and return its output, with errors, and its exit status.

        The command can change files in that directory only. It has no network, and may run for 120 seconds; what it
        leaves in the background is killed.

        Args:
            command: The command, as for `sh -c`.
        """
        result = await run_command(command, path, LIMITS)
        ends = {
            "time": f"killed after {LIMITS.wall_seconds:g} seconds",
            "output": f"killed after it printed {LIMITS.output_bytes:,} bytes",
        }
        end = ends.get(result.outcome, f"exit status {result.status}")
        return ToolResult(text=f"{result.output.rstrip()}\n[{end}]".lstrip(), is_error=end != "exit status 0")

    return tool_of(shell, effect="write", seconds=LIMITS.total_seconds + 30, concurrency=1, source=f"shell:{path}")


def _checked(directory: str) -> Path:
    path = Path(directory).expanduser().resolve()
    if not path.is_dir():
        raise UserError(f"shell:{directory} is not a directory", hint="give an existing directory: shell:DIR")
    if path in (Path(path.anchor), Path.home()):
        raise UserError(f"shell may not change all of {path}", hint="give a directory in it: shell:DIR")
    return path
