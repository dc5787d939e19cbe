"""Who may write the file: whoever can, can send all traffic elsewhere."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from xdplb.errors import NotReadyError

if TYPE_CHECKING:
    from pathlib import Path

_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def read_safely(path: Path) -> bytes:
    """The bytes of a file that nobody but root and its owner, who is asking, may write.

    Raises:
        NotReadyError: Others may, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            _refuse_unsafe(path, os.fstat(file.fileno()))
            return file.read()
    except OSError as error:
        raise NotReadyError(
            f"{path} cannot be read: {(error.strerror or 'no reason given').lower()}",
            "name a file that is there, and that you may read",
        ) from error


def _refuse_unsafe(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        return  # a pipe has no owner who could change it later
    if found.st_uid not in {0, os.geteuid()}:
        raise NotReadyError(
            f"{path} belongs to another user, who could send the traffic elsewhere",
            f"'chown root {path}'",
        )
    if found.st_mode & _OTHERS:
        raise NotReadyError(
            f"{path} may be written by others, who could send the traffic elsewhere",
            f"'chmod go-w {path}'",
        )
    directory = path.resolve().parent
    around = directory.stat()
    if around.st_mode & stat.S_IWOTH and not around.st_mode & stat.S_ISVTX:
        raise NotReadyError(
            f"anybody may put another file in the place of {path}", f"'chmod o-w {directory}'"
        )
