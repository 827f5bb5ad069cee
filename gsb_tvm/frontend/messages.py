"""One sentence out of a library's long error text."""

import re

_LONGEST = 200


def first_sentence(error: BaseException) -> str:
    """Return the first line of substance of an exception's text, trimmed to 200 characters."""
    text = str(error)
    text = re.sub(r"\[(ShapeInferenceError|TypeInferenceError)\]", "", text)
    text = re.sub(r"\(op_type:\s*[^)]*\):?", "", text)
    lines = [line.strip(" :=>.") for line in text.splitlines() if line.strip(" :=>.")]
    line = re.sub(r"\s+", " ", lines[0]) if lines else type(error).__name__
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
