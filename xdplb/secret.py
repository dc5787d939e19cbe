"""The secret that balancers have in common, and the keys of the hash that come of it.

The hash chooses a client's backend and the place of its flow, which is its NAT port. So balancers
with the same secret and the same services choose alike, without a word between them.
"""

from __future__ import annotations

import stat
from hashlib import blake2b
from shlex import quote
from typing import TYPE_CHECKING, Final

from xdplb import files
from xdplb.errors import InvalidValueError, NotReadyError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

SHORTEST: Final = 16
LONGEST: Final = 4096
"""Bytes of a secret."""
_PURPOSE: Final = b"xdplb hash keys"
_KEY_BYTES: Final = 8


def hash_keys(path: Path) -> tuple[int, int]:
    """The two 64-bit keys that a secret makes, on every machine the same.

    Args:
        path: The file that it is in; every byte of it counts.

    Raises:
        NotReadyError: It cannot be read, or others could have read or written it.
        InvalidValueError: It is too short to be one, or so long that something else was meant.
    """
    secret, status = files.read_regular(path, _how_to_make(path), LONGEST + 1)
    for error in _distrust(path, status):
        raise error
    if len(secret) < SHORTEST:
        raise InvalidValueError(
            f"{path}: {len(secret)} bytes are too few for a secret, it has {SHORTEST} or more",
            _how_to_make(path),
        )
    if len(secret) > LONGEST:
        raise InvalidValueError(
            f"{path}: a secret has {LONGEST} bytes or fewer", "is it the right file?"
        )
    digest = blake2b(secret, digest_size=2 * _KEY_BYTES, person=_PURPOSE).digest()
    return (
        int.from_bytes(digest[:_KEY_BYTES], "little"),
        int.from_bytes(digest[_KEY_BYTES:], "little"),
    )


def _how_to_make(path: Path) -> str:
    file = quote(f"{path}")
    return f"'umask 077; openssl rand -out {file} -hex 32' makes one; then copy it to the others"


def _distrust(path: Path, status: os.stat_result) -> Iterator[NotReadyError]:
    """Why others may know it, or have chosen it: they could aim at one backend, or guess ports."""
    if not files.is_owned(status):
        yield NotReadyError(
            f"{path}: belongs to user {status.st_uid}, so it is no secret",
            f"make another one, which belongs to root: {_how_to_make(path)}",
        )
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield NotReadyError(
            f"{path}: others than its owner may read or write it, so it is no secret",
            f"chmod 600 {quote(f'{path}')}, and make another one if somebody has read it",
        )
    for parent in files.open_directories(path):
        yield NotReadyError(
            f"{path}: everybody may replace it in {parent}", f"chmod o-w {quote(f'{parent}')}"
        )
