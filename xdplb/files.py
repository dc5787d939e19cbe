"""Files that are written as a whole or not at all; ``-`` stands for the standard streams.

And such as root has to trust: who could have written them is a matter of what is in them.
"""

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
    from collections.abc import Iterable, Iterator

STREAM: Final = "-"
_ROOT: Final = 0


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


def read_regular(path: Path, hint: str, limit: int = -1) -> tuple[bytes, os.stat_result]:
    """What is in a regular file, and whose it is; what is none is not waited for.

    Args:
        path: The file.
        hint: What to do where there is none.
        limit: The most bytes to read; -1 for all.

    Raises:
        NotReadyError: It cannot be read; the message begins with its path.
    """
    try:
        with open(path, "rb", opener=_open) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise NotReadyError(f"{path}: is no regular file", "name the file itself")
            return file.read(limit), status
    except FileNotFoundError:
        raise NotReadyError(f"{path}: there is no such file", hint) from None
    except PermissionError as error:
        raise NotReadyError(
            f"{path}: may not be read", "run it as root, for example with sudo"
        ) from error
    except IsADirectoryError:
        raise NotReadyError(f"{path}: is a directory", "name a file in it") from None
    except OSError as error:
        raise NotReadyError(
            f"{path}: cannot be read: {error.strerror}", "look at it with 'ls -l'"
        ) from error


def is_owned(status: os.stat_result) -> bool:
    """Whether a file is root's, or the caller's own."""
    return status.st_uid in {_ROOT, os.geteuid()}


def open_directories(path: Path) -> Iterator[Path]:
    """The directories in which everybody may put another file in the place of this one."""
    for parent in dict.fromkeys((path.absolute().parent, path.resolve().parent)):
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            yield parent


def _open(path: str, flags: int) -> int:
    """Open without waiting for the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)
