"""Reading a target as the user wrote it: words, one string, JSON, a mapping."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from gsb_tvm.dialect.errors import TargetError

OPTIONS = ("-mcpu", "-mtriple", "-mattr", "-num-cores", "-arch")
_KEYS = ("kind", "tag", "mcpu", "mtriple", "mattr", "num-cores", "arch")
# Descriptions in what TVM's own Target.export() writes; they change no code that we generate.
_DESCRIPTIVE = ("keys", "host", "device", "model")
_SHOWN = 200  # characters of a user's text that a message repeats
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
    arch: str = ""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the three names of ``known`` closest to ``name``, quoted, for a message.

    Upper and lower case count as one; of names equally close, one with the same letters in another
    order comes first: "cortex-a27" is nearer to "cortex-a72" than to "cortex-a77". Of an entry such
    as "llvm -mcpu=haswell" only what follows the last "=" is compared.
    """

    def likeness(candidate: str) -> tuple[float, float, str]:
        ours, theirs = name[:_SHOWN].casefold(), candidate.rpartition("=")[2].casefold()
        in_order = SequenceMatcher(None, ours, theirs).ratio()
        any_order = SequenceMatcher(None, sorted(ours), sorted(theirs)).ratio()
        return -in_order, -any_order, candidate

    return ", ".join(f'"{match}"' for match in sorted(set(known), key=likeness)[:3])


def shown(text: str) -> str:
    """Return ``text`` fit for one line of a message: escaped and cut."""
    printable = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: _SHOWN + 1])
    return printable if len(printable) <= _SHOWN else f"{printable[:_SHOWN]}..."


def unknown(text: str, what: str, name: str, known: Iterable[str]) -> TargetError:
    """Build the error for a name that does not exist."""
    return TargetError(
        f'target "{text}": unknown {what} "{shown(name)}". Nearest names: {nearest(name, known)}.'
    )


def parse(spec: str | Mapping[str, object] | Sequence[str]) -> Request:
    """Read ``spec`` into a :class:`Request`.

    Raises
    ------
    TargetError
        An option or key that does not exist, is given twice, or has a value of the wrong form.
    """
    if isinstance(spec, Mapping):
        return _from_mapping(spec, shown(json.dumps(spec, default=str)))
    text = (spec if isinstance(spec, str) else " ".join(spec)).strip()
    if not text:
        raise TargetError("the target is empty. Write for example --target llvm -mcpu=haswell.")
    if text.startswith("{"):
        return _from_json(text)
    return _from_words(text.split(), shown(text))


def _from_json(text: str) -> Request:
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as err:
        raise TargetError(f'target "{shown(text)}": not valid JSON ({err}).') from err
    return _from_mapping(value, shown(text))


def _from_words(words: list[str], text: str) -> Request:
    head, *rest = words
    if head.startswith("-"):
        raise TargetError(
            f'target "{text}": the first word must be a kind, a tag or "native", not an option. '
            f'Write "llvm {text}".'
        )
    if not _takes_options(head):
        return Request(text, head)
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


def _takes_options(head: str) -> bool:
    """Whether options after ``head`` mean anything; for another kind the kind is the mistake."""
    return head in ("llvm", "native", "cuda") or "/" in head


def _number(text: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal()):
        raise TargetError(
            f'target "{text}": -num-cores is "{shown(value)}", expected a whole number.'
        )
    return int(value) if len(value) < 6 else 10**6


def _from_mapping(config: Mapping[str, object], text: str) -> Request:
    kind, tag = _string(text, config, "kind"), _string(text, config, "tag")
    if kind and tag:
        raise TargetError(f'target "{text}": both kind and tag are given. Give one of them.')
    head = kind or tag
    if head and not _takes_options(head):
        return Request(text, head)
    for key in config:
        ignored = key in _DESCRIPTIVE or str(key).startswith("feature.")
        if key not in _KEYS and not ignored:
            raise unknown(text, "key", str(key), _KEYS)
    if not head:
        raise TargetError(f'target "{text}": no kind is given. Add "kind": "llvm".')
    return Request(
        text,
        head,
        _string(text, config, "mcpu"),
        _string(text, config, "mtriple"),
        _mattr(text, config.get("mattr", ())),
        _cores(text, config.get("num-cores")),
        _string(text, config, "arch"),
    )


def _string(text: str, config: Mapping[str, object], key: str) -> str:
    value = config.get(key, "")
    if not isinstance(value, str):
        raise TargetError(f'target "{text}": {key} is {shown(repr(value))}, expected a string.')
    if key in ("mcpu", "mtriple", "arch") and key in config and not value:
        raise TargetError(f'target "{text}": {key} is empty. Leave it out or name one.')
    return value


def _mattr(text: str, value: object) -> tuple[str, ...]:
    """Check the form of ``mattr``: "+name" to add, "-name" to remove, each name once."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(i, str) for i in items):
        raise TargetError(
            f'target "{text}": mattr is {shown(repr(value))}, expected a list of strings.'
        )
    for item in items:
        if item[:1] not in ("+", "-") or len(item) < 2:
            raise TargetError(
                f'target "{text}": feature "{shown(item)}" has no sign. '
                "Write +name to add a feature, -name to remove it, separated by commas."
            )
    names = [item[1:] for item in items]
    for name in names:
        if len({item[0] for item in items if item[1:] == name}) == 2:
            raise TargetError(
                f'target "{text}": feature "{shown(name)}" is both added and removed. '
                "Write it once."
            )
    return tuple(dict.fromkeys(items))


def _cores(text: str, value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096:
        raise TargetError(
            f'target "{text}": num-cores is {shown(repr(value))}, expected 1 to 4096.'
        )
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
