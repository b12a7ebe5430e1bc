"""A chat template that shows tools, as Qwen's family asks for calls; and a model's folder with it instead of its own.

Most small models of the tests have templates that ignore tools. With this one the same weights are shown them.
"""

from __future__ import annotations

from pathlib import Path

from reason.serving.model_files.find import ModelFiles

TOOL_TEMPLATE = """\
{%- set told = messages[0].content if messages[0].role == 'system' else '' -%}
{%- if told or tools %}<|im_start|>system
{{ told }}
{%- if tools %}

You may call tools:
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
Reply with <tool_call>{"name": ..., "arguments": {...}}</tool_call> for each call.
{%- endif %}<|im_end|>
{% endif %}
{%- for m in messages -%}
{%- if loop.first and m.role == 'system' %}
{%- elif m.role == 'tool' %}<|im_start|>user
<tool_response>{{ m.content }}</tool_response><|im_end|>
{% else %}<|im_start|>{{ m.role }}
{{ m.content }}
{%- for call in m.tool_calls or [] %}
<tool_call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>
{%- endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def with_tool_template(files: ModelFiles, folder: Path) -> ModelFiles:
    """The model in another folder: its files, with the template in the place of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in files.directory.iterdir():
        if not path.name.startswith("chat_template"):
            (folder / path.name).symlink_to(path)
    (folder / "chat_template.jinja").write_text(TOOL_TEMPLATE, encoding="utf-8")
    return ModelFiles(f"{files.name}-tools", folder, f"{files.fingerprint}-tools", "tests")
