"""One sentence out of a library's long error text."""

import re

_LONGEST = 200
# Scopes of exporters nest names of some hundred characters.
_LONGEST_NAME = 1000
_TAGS = re.compile(r"\[(?:Shape|Type)InferenceError\]|Inference error\(s\):")
_INFERENCE = re.compile(r"\(op_type:\s*(\w+)(?:,\s*node name:\s*([^)]*))?\):?")
_CONTEXT = re.compile(r"Bad node spec for node\. Name: (.*) OpType: (\w+)")


def is_plain(text: object) -> bool:
    """Say whether a name may stand in a message: text, printable, of a bearable length."""
    return isinstance(text, str) and text.isprintable() and len(text) <= _LONGEST_NAME


def shown(text: object) -> str:
    """Return a name that has not been checked as it may stand in a message."""
    return str(text) if is_plain(text) else f"{ascii(text)[:_LONGEST]}…"


def first_sentence(error: BaseException) -> str:
    """Return the first line of substance of an exception's text, trimmed to 200 characters."""
    text = _INFERENCE.sub("", _TAGS.sub("", str(error)))
    lines = [line.strip(" :=>.") for line in text.splitlines() if line.strip(" :=>.")]
    line = re.sub(r"\s+", " ", lines[0]) if lines else type(error).__name__
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def blamed_node(error: BaseException) -> str | None:
    """Return 'Op node "name"' where an error of onnx.checker tells it."""
    text = str(error)
    if found := _INFERENCE.search(text):
        return f'{found[1]} node "{found[2] or ""}"'
    if found := _CONTEXT.search(text):
        return f'{found[2]} node "{found[1]}"'
    return None
