"""Files that are written as a whole or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from xdplb import files
from xdplb.errors import InvalidValueError, NotReadyError, XdplbError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stream:
    """A standard stream."""

    def __init__(self, data: bytes = b"", *, is_terminal: bool = False) -> None:
        self.buffer = io.BytesIO(data)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def test_a_file_is_written_for_its_owner_alone_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "flows"
    path.write_bytes(b"old")
    path.chmod(0o666)
    assert files.write(f"{path}", [b"new ", memoryview(b"text")]) == 8
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new text", 0o600)
    assert files.read(f"{path}") == b"new text"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_finished_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise OSError(28, "No space left on device")

    path = tmp_path / "flows"
    path.write_bytes(b"old")
    with pytest.raises(NotReadyError, match=r"cannot write .*: No space left") as caught:
        files.write(f"{path}", pieces())
    assert caught.value.exit_code == 3
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"old")
    (tmp_path / "link").symlink_to("there")
    files.write(f"{tmp_path / 'link'}", [b"new"])
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there").read_bytes() == b"new"


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    cases = {
        tmp_path: "is a directory",
        tmp_path / "pipe": "is not a file",
        Path("/dev/null"): "is not a file",
        tmp_path / "none" / "flows": "is no directory",
    }
    for path, message in cases.items():
        with pytest.raises(InvalidValueError, match=message) as caught:
            files.write(f"{path}", [b"new"])
        assert f"{path}" in f"{caught.value}"
        assert caught.value.hint
    assert (tmp_path / "pipe").is_fifo()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    cases = {
        tmp_path: "is a directory",
        tmp_path / "none": "there is no file",
        Path("/dev/zero"): "is not a file",
    }
    for path, message in cases.items():
        with pytest.raises(InvalidValueError, match=message) as caught:
            files.read(f"{path}")
        assert f"{path}" in f"{caught.value}"


def test_a_file_that_may_not_be_read_is_no_wrong_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(XdplbError, match=r"cannot read .*: Permission denied") as caught:
        files.read(f"{tmp_path / 'flows'}")
    assert caught.value.exit_code == 3


def test_a_dash_is_the_standard_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Stream()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stdin", Stream(b"question"))
    assert files.write("-", [b"ans", b"wer"]) == 6
    assert out.buffer.getvalue() == b"answer"
    assert files.read("-") == b"question"


def test_nothing_is_written_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", Stream(is_terminal=True))
    with pytest.raises(InvalidValueError, match="is a terminal"):
        files.refuse_target("-")
