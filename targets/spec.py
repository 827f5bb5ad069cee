"""Reading a target as the user wrote it: words, one string, JSON, a mapping."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from gsb_tvm.dialect.errors import TargetError

OPTIONS = ("-mcpu", "-mtriple", "-mattr", "-num-cores")
_KEYS = ("kind", "tag", "mcpu", "mtriple", "mattr", "num-cores")
# Descriptions in what TVM's own Target.export() writes; they change no code that we generate.
_DESCRIPTIVE = ("keys", "host", "device", "model")
_OPTION_LIKE = re.compile(r"-[a-z][a-z-]+(=.*)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Request:
    """A target as asked for: every part checked for form, none for meaning.

    ``text`` is what the user wrote, for messages; ``head`` is a kind, a tag or "native".
    """

    text: str
    head: str
    mcpu: str = ""
    mtriple: str = ""
    mattr: tuple[str, ...] = ()
    num_cores: int | None = None


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the three names of ``known`` closest to ``name``, quoted, for a message."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    close = get_close_matches(name.casefold(), list(by_folded), n=3, cutoff=0.0)
    return ", ".join(f'"{by_folded[match]}"' for match in close)


def unknown(text: str, what: str, name: str, known: Sequence[str]) -> TargetError:
    """Build the error for a name that does not exist."""
    return TargetError(
        f'target "{text}": unknown {what} "{name}". Nearest names: {nearest(name, known)}.'
    )


def parse(spec: str | Mapping[str, object] | Sequence[str]) -> Request:
    """Read ``spec`` into a :class:`Request`.

    Raises
    ------
    TargetError
        An option or key that does not exist, is given twice, or has a value of the wrong form.
    """
    if isinstance(spec, Mapping):
        return _from_mapping(spec, json.dumps(spec, default=str))
    text = (spec if isinstance(spec, str) else " ".join(spec)).strip()
    if not text:
        raise TargetError("the target is empty. Write for example --target llvm -mcpu=haswell.")
    if text.startswith("{"):
        return _from_json(text)
    return _from_words(text.split(), text)


def _from_json(text: str) -> Request:
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as err:
        raise TargetError(f"target {text!r}: not valid JSON ({err}).") from err
    return _from_mapping(value, text)


def _from_words(words: list[str], text: str) -> Request:
    head, *rest = words
    if head.startswith("-"):
        raise TargetError(
            f'target "{text}": the first word must be a kind, a tag or "native", not an option. '
            f'Write "llvm {text}".'
        )
    given: dict[str, object] = {}
    pending = iter(rest)
    for word in pending:
        option, equals, value = word.partition("=")
        if option not in OPTIONS:
            raise unknown(text, "option", option, OPTIONS)
        if not equals:
            value = next(pending, "")
        key = option.removeprefix("-")
        if key in given:
            raise TargetError(f'target "{text}": {option} is given twice. Give it once.')
        if not value:
            raise TargetError(f'target "{text}": {option} has no value. Write {option}=VALUE.')
        given[key] = _number(text, value) if key == "num-cores" else value
    return _from_mapping({"kind": head, **given}, text)


def _number(text: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal()):
        raise TargetError(f'target "{text}": -num-cores is "{value}", expected a whole number.')
    return int(value) if len(value) < 6 else 10**6


def _from_mapping(config: Mapping[str, object], text: str) -> Request:
    for key in config:
        ignored = key in _DESCRIPTIVE or str(key).startswith("feature.")
        if key not in _KEYS and not ignored:
            raise unknown(text, "key", str(key), _KEYS)
    head = _string(text, config, "kind") or _string(text, config, "tag")
    if not head:
        raise TargetError(f'target "{text}": no kind is given. Add "kind": "llvm".')
    return Request(
        text,
        head,
        _string(text, config, "mcpu"),
        _string(text, config, "mtriple"),
        _mattr(text, config.get("mattr", ())),
        _cores(text, config.get("num-cores")),
    )


def _string(text: str, config: Mapping[str, object], key: str) -> str:
    value = config.get(key, "")
    if not isinstance(value, str):
        raise TargetError(f'target "{text}": {key} is {value!r}, expected a string.')
    return value


def _mattr(text: str, value: object) -> tuple[str, ...]:
    """Check the form of ``mattr``: "+name" to add, "-name" to remove, each name once."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(i, str) for i in items):
        raise TargetError(f'target "{text}": mattr is {value!r}, expected a list of strings.')
    for item in items:
        if item[:1] not in ("+", "-") or len(item) < 2:
            raise TargetError(
                f'target "{text}": feature "{item}" has no sign. '
                "Write +name to add a feature, -name to remove it, separated by commas."
            )
    names = [item[1:] for item in items]
    for name in names:
        if len({item[0] for item in items if item[1:] == name}) == 2:
            raise TargetError(f'target "{text}": feature "{name}" is both added and removed.')
    return tuple(dict.fromkeys(items))


def _cores(text: str, value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096:
        raise TargetError(f'target "{text}": num-cores is {value!r}, expected 1 to 4096.')
    return value


def take_target(argv: Sequence[str]) -> tuple[list[str] | None, list[str]]:
    """Split a command line into the words of ``--target`` and all other words.

    ``--target llvm -mcpu=cortex-a72 -o out.so`` has its target in several words, which argparse
    cannot read. The words that belong to it: the one after ``--target``, then each that directly
    follows in the form ``-word=value``, or one of :data:`OPTIONS` with its value. Returns None for
    the target where there is no ``--target``, and an empty list where nothing follows it.
    """
    words = list(argv)
    for at, word in enumerate(words):
        if word == "--":
            break
        if word == "--target" or word.startswith("--target="):
            target = [word.partition("=")[2]] if "=" in word else words[at + 1 : at + 2]
            end = at + 1 + (word == "--target" and bool(target))
            while end < len(words) and _OPTION_LIKE.fullmatch(words[end]):
                if "=" not in words[end] and words[end] not in OPTIONS:
                    break
                width = 1 if "=" in words[end] else 2
                target += words[end : end + width]
                end += width
            return target, words[:at] + words[min(end, len(words)) :]
    return None, words
