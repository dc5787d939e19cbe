"""Every key of a file against the tables: all that is wrong with types, ranges and spelling."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast, get_args, get_origin

from msgspec import ValidationError, convert, structs

from xdplb.config.problems import below, item
from xdplb.config.shapes import reader
from xdplb.config.words import (
    advice,
    alternatives,
    is_table,
    metas,
    nearest,
    plain,
    quoted,
    reason,
    shown,
)
from xdplb.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdplb.config.problems import Problems
    from xdplb.config.tables import Table

NO_CHECK = "none"


def check_table(kinds: Sequence[type[Table]], value: object, key: str, problems: Problems) -> None:
    """Check a table and everything in it.

    Args:
        kinds: What it may be: one, or several that one of their keys tells apart.
        value: What it is.
        key: Where it stands.
        problems: Where to note what is wrong.
    """
    if not isinstance(value, dict):
        problems.add(key, f"{shown(value)} is not a table", f"begin it with {_header(key)}")
        return
    kind = _choose(kinds, value, key, problems)
    if kind is None:
        return
    config = kind.__struct_config__
    fields = {entry.encode_name: entry for entry in structs.fields(kind)}
    for name in value:
        if name not in fields and name != config.tag_field:
            _refuse_unknown(kind, kinds, name, key, problems)
    for name, entry in fields.items():
        where = below(key, name)
        if name in value:
            check_value(entry.type, value[name], where, problems)
        elif entry.required:
            problems.add(where, "is missing", _how_to_begin(entry.type, where, name))


def check_value(kind: Any, value: object, key: str, problems: Problems) -> None:  # noqa: ANN401
    """Check the value of a key, or an item of one.

    Args:
        kind: What it may be.
        value: What it is.
        key: Where it stands.
        problems: Where to note what is wrong.
    """
    options = list(alternatives(kind))
    lists = [plain(one) for one in options if get_origin(plain(one)) is list]
    if is_table(options[0]):
        check_table(options, value, key, problems)
    elif lists and is_table(get_args(lists[0])[0]) and not (value and isinstance(value, list)):
        what = "has nothing in it" if value == [] else f"{shown(value)} is not a list"
        problems.add(key, what, f"begin each with {_header(key, 2)}")
    elif lists and isinstance(value, list) and value:
        for number, one in enumerate(value):
            check_value(get_args(lists[0])[0], one, item(key, number), problems)
    else:
        _check_leaf(kind, value, key, problems)


def _check_leaf(kind: Any, value: object, key: str, problems: Problems) -> None:  # noqa: ANN401
    hint = advice(_name(key), kind, value)
    try:
        convert(value, kind)
    except ValidationError as error:
        problems.add(key, reason(f"{error}", value, kind), hint)
        return
    if not isinstance(value, str):
        return
    for option in alternatives(kind):
        for meta in metas(option):
            if plain(option) is str and (read := reader(meta)):
                try:
                    read(value)
                except InvalidValueError as error:
                    problems.add_error(key, error, hint)


def _choose(
    kinds: Sequence[type[Table]], value: Mapping[str, object], key: str, problems: Problems
) -> type[Table] | None:
    """The one of ``kinds`` that a table says it is, None if it is none of them."""
    tag_field = kinds[0].__struct_config__.tag_field
    if tag_field is None:
        return kinds[0]
    known = {_tag(kind): kind for kind in kinds}
    tag = value.get(tag_field, NO_CHECK)
    if isinstance(tag, str) and tag in known:
        return known[tag]
    near = nearest(tag, known)
    problems.add(
        below(key, tag_field),
        f"{shown(tag)} is not one of {quoted(known)}",
        f"did you mean {shown(near)}?" if near else f"it is one of {quoted(known)}",
    )
    return None


def _refuse_unknown(
    kind: type[Table], kinds: Sequence[type[Table]], name: str, key: str, problems: Problems
) -> None:
    """Say what a key that a table does not have was meant to be."""
    where = below(key, name)
    owners = [_tag(one) for one in kinds if name in _names(one)]
    if owners:
        tag = _tag(kind)
        otherwise = "and no check is named" if tag == NO_CHECK else f"not of {tag}"
        problems.add(
            where,
            f"is a key of check {' and '.join(owners)}, {otherwise}",
            f'take it out, or write check = "{owners[0]}"',
        )
        return
    known = [*_names(kind), *filter(None, [kind.__struct_config__.tag_field])]
    near = nearest(name, known)
    problems.add(
        where,
        "is no key that is known here",
        f"did you mean {near}?" if near else f"known are {', '.join(known)}",
    )


def _names(kind: type[Table]) -> list[str]:
    return [entry.encode_name for entry in structs.fields(kind)]


def _tag(kind: type[Table]) -> str:
    return cast("str", kind.__struct_config__.tag)


def _how_to_begin(kind: Any, key: str, name: str) -> str:  # noqa: ANN401 - types have no type
    option = next(alternatives(kind))
    if is_table(option):
        return f"begin it with {_header(key)}"
    if get_origin(plain(option)) is list and is_table(get_args(plain(option))[0]):
        return f"begin each with {_header(key, 2)}"
    return advice(name, kind)


def _header(key: str, brackets: int = 1) -> str:
    """The line that begins a table: in single brackets, or in double ones where it is an item."""
    if key.endswith("]"):
        brackets = 2
    return "[" * brackets + re.sub(r"\[[0-9]+\]", "", key) + "]" * brackets


def _name(key: str) -> str:
    """The key without where it stands; nothing for an item of a list."""
    return "" if key.endswith("]") else key.rpartition(".")[2]
