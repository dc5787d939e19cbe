"""Files that are written as a whole or not at all; ``-`` stands for the standard streams."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xdplb.errors import InvalidValueError, NotReadyError

if TYPE_CHECKING:
    from collections.abc import Iterable

STREAM: Final = "-"


def refuse_target(name: str) -> None:
    """Find out before the work whether a file can be written at all.

    Raises:
        InvalidValueError: There is something else at its place, or no directory for it.
    """
    if name == STREAM:
        if sys.stdout is not None and sys.stdout.isatty():
            raise InvalidValueError("- is a terminal here", "redirect the output, or name a file")
        return
    path = _real(name)
    if path.exists() and not path.is_file():
        what = "a directory" if path.is_dir() else "not a file"
        raise InvalidValueError(f"{name} is {what}", "name a file; one that is there is replaced")
    if not path.parent.is_dir():
        raise InvalidValueError(f"{name}: {path.parent} is no directory", "make it first")


def write(name: str, pieces: Iterable[bytes | memoryview]) -> int:
    """Write a file that only its owner can read, in the place of one that may be there.

    Args:
        name: Its path; that of a symbolic link stands for where it leads.
        pieces: What goes into it.

    Returns:
        How many bytes.

    Raises:
        InvalidValueError: As ``refuse_target``.
        NotReadyError: It cannot be written; what was there before still is.
    """
    refuse_target(name)
    try:
        if name == STREAM:
            count = sum(sys.stdout.buffer.write(piece) for piece in pieces)
            sys.stdout.buffer.flush()
            return count
        return _replace(_real(name), pieces)
    except OSError as error:
        raise NotReadyError(
            f"cannot write {name}: {error.strerror}", "name another file"
        ) from error


def _real(name: str) -> Path:
    return Path(os.path.realpath(name))


def _replace(path: Path, pieces: Iterable[bytes | memoryview]) -> int:
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            count = sum(file.write(piece) for piece in pieces)
            file.flush()
            os.fsync(fd)
        os.replace(temporary, path)  # noqa: PTH105 - as it came from mkstemp()
    except BaseException:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return count


def read(name: str) -> bytes:
    """All of a file.

    Raises:
        InvalidValueError: It is not there, or no file.
        NotReadyError: It cannot be read.
    """
    try:
        if name == STREAM:
            return sys.stdin.buffer.read()
        with Path(name).open("rb") as file:
            if stat.S_ISCHR(os.fstat(file.fileno()).st_mode):
                raise InvalidValueError(f"{name} is not a file", "name one of 'xdplb save'")
            return file.read()
    except FileNotFoundError:
        raise InvalidValueError(
            f"there is no file {name}", "'xdplb save FILE' writes one"
        ) from None
    except IsADirectoryError:
        raise InvalidValueError(f"{name} is a directory", "name a file of 'xdplb save'") from None
    except OSError as error:
        raise NotReadyError(f"cannot read {name}: {error.strerror}", "name another file") from error
