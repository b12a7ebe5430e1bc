"""Chat templates of models that think, and a model's directory with one of them instead of its own.

They have the structure of Qwen3's (a switch; an empty thought where it is off), DeepSeek V3.1's (off by default; the
template opens or closes the thought) and DeepSeek R1's (always on, opened by the template).
"""

from __future__ import annotations

import json
from pathlib import Path

from reason.serving.model_files.find import ModelFiles

_TURNS = """\
{%- set last = namespace(user=0) -%}
{%- for m in messages %}{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor -%}
{%- for m in messages -%}
<|start|>{{ m.role }}
{% if m.role == 'assistant' and m.reasoning_content and loop.index0 > last.user %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content }}
{%- for call in m.tool_calls or [] %}
<tool_call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>
{%- endfor %}<|end|>
{% endfor -%}
{%- if tools %}<|start|>system
Tools: {% for tool in tools %}{{ tool | tojson }}{% endfor %} Call them with <tool_call>.<|end|>
{% endif -%}
"""
QWEN = (
    _TURNS
    + "{%- if add_generation_prompt %}<|start|>assistant\n"
    + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
DEEPSEEK = (
    _TURNS + "{%- if add_generation_prompt %}<|start|>assistant\n{% if thinking %}<think>{% else %}</think>{% endif %}"
    "{% endif %}"
)
R1 = _TURNS + "{%- if add_generation_prompt %}<|start|>assistant\n<think>\n{% endif %}"


MAGISTRAL = R1.replace("</think>", "[/THINK]").replace("<think>", "[THINK]")
HARMONY = (
    "<|start|>system\nReasoning: {{ reasoning_effort or 'medium' }}. Channels: analysis, final.<|end|>"
    "{%- for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor -%}"
    "{%- if add_generation_prompt %}<|start|>assistant{% endif %}"
)
"""Like gpt-oss's: thought and answer are channels."""
TAGS, SPECIAL_TAGS, CHANNEL_TAGS = ("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<|channel|>", "<|message|>")


def with_template(
    files: ModelFiles,
    folder: Path,
    template: str,
    *,
    tag_tokens: bool = False,
    tags: tuple[str, str] = TAGS,
    special: bool = False,
) -> ModelFiles:
    """The model in another directory with a template.

    Args:
        tag_tokens: Whether the tags are added tokens, for which the vocabulary must have room.
        tags: The tags.
        special: Whether they are special tokens, which texts do not show.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in files.directory.iterdir():
        if not path.name.startswith("chat_template") and not (tag_tokens and path.name == "tokenizer.json"):
            (folder / path.name).symlink_to(path)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    if tag_tokens:
        from tokenizers import AddedToken, Tokenizer

        fast = Tokenizer.from_file(str(files.directory / "tokenizer.json"))
        fast.add_tokens([AddedToken(tag, special=special, normalized=False) for tag in tags])
        fast.save(str(folder / "tokenizer.json"))
    config = json.loads((files.directory / "config.json").read_text(encoding="utf-8"))
    assert config["vocab_size"] >= 261 or not tag_tokens
    return ModelFiles(f"{files.name}-thinks", folder, f"{files.fingerprint}-thinks", "tests")
