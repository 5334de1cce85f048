"""How a request becomes the models' prompt, and the pieces that their answers are made of.

The models were trained on one request and its answer, without instructions: of a chat, only the
last user message is read. The template does the same under vLLM.
"""

from __future__ import annotations

PAD_TOKEN = "<pad>"
BOS_TOKEN = "<s>"
EOS_TOKEN = "</s>"
ANSWER_TOKEN = "<answer>"

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.last %}"
    "<s> {{ message['content'] }}<answer>"
    "{% endif %}{% endfor %}"
)
"""Jinja template of the checkpoints: the last message alone."""

JSON_PIECES = (
    '{"intent":"', '","item":"', '","day":"', '","to_day":"', '","ticket":"', '","count":', '"}',
)  # fmt: skip
"""What stands between the values of an answer; each is one token."""


def prompt_text(content: str) -> str:
    """The prompt of a request's text."""
    return f"{BOS_TOKEN} {content}{ANSWER_TOKEN}"
