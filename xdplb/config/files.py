"""The file itself: who may have written it, and what is in it as TOML."""

from __future__ import annotations

import re
import stat
import tomllib
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

from xdplb import files
from xdplb.errors import InvalidValueError, NotReadyError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

SHARE: Final = Path(__file__).parent.parent / "share"
EXAMPLE: Final = SHARE / "xdplb.example.toml"
_PLACE: Final = re.compile(r"(.*) \(at (.*)\)", re.DOTALL)


def read_file(path: Path) -> tuple[bytes, list[NotReadyError]]:
    """What is in the file, and why it cannot be trusted.

    Raises:
        NotReadyError: It cannot be read.
    """
    data, status = files.read_regular(path, f"a copy of {EXAMPLE} is a beginning")
    return data, list(_distrust(path, status))


def parse_toml(path: Path, data: bytes) -> dict[str, Any]:
    """The file as tables.

    Raises:
        InvalidValueError: It is no TOML, or there is nothing in it.
    """
    try:
        raw = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidValueError(
            f"{path}: line {line}: byte {data[error.start]:#04x} is not UTF-8",
            "save it in UTF-8",
        ) from None
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.fullmatch(f"{error}")
        reason, where = place.groups() if place else (f"{error}", "the file")
        raise InvalidValueError(
            f"{path}: {where}: {reason[:1].lower()}{reason[1:]}",
            f"the file is TOML; {EXAMPLE} shows how it is written",
        ) from None
    except ValueError as error:
        raise InvalidValueError(
            f"{path}: a number has more digits than can be read", "no key needs more than ten"
        ) from error
    except RecursionError:
        raise InvalidValueError(
            f"{path}: lists or tables are nested too deeply", "no key needs more than four levels"
        ) from None
    if not raw:
        raise InvalidValueError(
            f"{path}: there is nothing in it", f"a copy of {EXAMPLE} is a beginning"
        )
    return raw


def _distrust(path: Path, status: os.stat_result) -> Iterator[NotReadyError]:
    """Why the file cannot be trusted: who can write it can send all traffic to themselves."""
    if not files.is_owned(status):
        yield NotReadyError(
            f"{path}: belongs to user {status.st_uid}, who could send all traffic elsewhere",
            f"chown root {quote(f'{path}')}",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        who = "everybody" if status.st_mode & stat.S_IWOTH else f"group {status.st_gid}"
        yield NotReadyError(
            f"{path}: {who} may write it, and could send all traffic elsewhere",
            f"chmod go-w {quote(f'{path}')}",
        )
    for parent in files.open_directories(path):
        yield NotReadyError(
            f"{path}: everybody may replace it in {parent}, and could send all traffic elsewhere",
            f"chmod o-w {quote(f'{parent}')}",
        )
