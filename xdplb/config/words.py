"""Types and values of the file in words, for messages."""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from enum import Enum
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

from msgspec import Meta, Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MOST: Final = 60
_KINDS: Final = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "object": "a table",
    "str": "text",
}


def shown(value: object) -> str:
    """A value as it stands in a file, cut where it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:  # a number with more digits than Python prints
        return "the number"
    return text if len(text) <= _MOST else f"{text[:_MOST]}..."


def alternatives(kind: Any) -> Iterator[Any]:  # noqa: ANN401 - types have no type
    """What a key may be, each with its own limits; nothing is not among them."""
    if get_origin(kind) in {Union, UnionType}:
        for one in get_args(kind):
            yield from alternatives(one)
    elif kind is not type(None):
        yield kind


def plain(kind: Any) -> Any:  # noqa: ANN401 - types have no type
    """A type without its limits."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def metas(kind: Any) -> Iterator[Meta]:  # noqa: ANN401 - types have no type
    """The limits of a type."""
    if get_origin(kind) is Annotated:
        yield from (meta for meta in kind.__metadata__ if isinstance(meta, Meta))


def is_table(kind: Any) -> bool:  # noqa: ANN401 - types have no type
    """Whether a type is a table of the file."""
    return isinstance(kind, type) and issubclass(kind, Struct)


def choices(kind: Any) -> list[str]:  # noqa: ANN401 - types have no type
    """The words that a key can be; empty if it is no matter of words."""
    words: list[str] = []
    for one in map(plain, alternatives(kind)):
        if get_origin(one) is Literal:
            words += get_args(one)
        elif isinstance(one, type) and issubclass(one, Enum):
            words += [member.value for member in one]
    return words


def reason(message: str, value: object, kind: object) -> str:
    """What msgspec says about a value, in the words of the file."""
    if words := choices(kind):
        return f"{shown(value)} is not one of {quoted(words)}"
    found = re.match(r"Expected `([^`]*)`(.*?)(?:, got `.*)?$", message)
    if not found:
        return f"{shown(value)} cannot be used: {message}"
    kinds = [word for word in found[1].split(" | ") if word != "null"]
    limit = found[2]
    for sign, word in (
        (" of length >= 1", " with something in it"),
        (" of length <= ", " no longer than "),
        (" >= ", " of at least "),
        (" <= ", " of at most "),
    ):
        limit = limit.replace(sign, word)
    return f"{shown(value)} is not {' or '.join(_KINDS.get(word, word) for word in kinds)}{limit}"


def advice(name: str, kind: object, value: object = None) -> str:
    """How a key is written.

    Args:
        name: The key, without where it stands; empty for an item of a list.
        kind: What it may be.
        value: What it is, to guess what is meant.
    """
    if words := choices(kind):
        near = nearest(value, words)
        return f"did you mean {shown(near)}?" if near else f"it is one of {quoted(words)}"
    examples = _examples(kind)
    if not examples:
        return f"write {name} = true or {name} = false"
    return f"write it like {f'{name} = ' if name else ''}{shown(examples[0])}"


def nearest(word: object, known: Iterable[str]) -> str | None:
    """The word that is probably meant."""
    close = get_close_matches(word.lower(), known, n=1) if isinstance(word, str) else []
    return close[0] if close else None


def quoted(words: Iterable[str]) -> str:
    """Words as they stand in a file, with commas."""
    return ", ".join(shown(word) for word in words)


def _examples(kind: object) -> list[object]:
    found: list[object] = []
    for one in alternatives(kind):
        bare = plain(one)
        if get_origin(bare) is list:
            items = _examples(get_args(bare)[0]) or choices(get_args(bare)[0])
            found += [items] if items else []
        for meta in metas(one):
            found += meta.examples or []
    return found
