"""Files that cannot be read, are no TOML, or could have been written by others."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from config_texts import LEAST, write

from xdplb.config import load, problems
from xdplb.errors import InvalidValueError, NotReadyError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn

STRANGER = 12345


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a = ", "end of document: invalid value"),
        (b"[balancer]\na b = 1", "line 2, column 3: expected"),
        (b"[a]\n[a]\n", "line 2, column 3: cannot declare"),
        (b"a\xff = 1", "line 1: byte 0xff is not UTF-8"),
        (b"a = 1\n# \xe4\n", "line 2: byte 0xe4 is not UTF-8"),
        (b"", "there is nothing in it"),
        (b"# a comment\n", "there is nothing in it"),
        (b"a = " + b"[" * 5000, "nested too deeply"),
        (b"a = " + b"9" * 5000, "more digits than can be read"),
    ],
)
def test_what_is_no_toml_is_told_with_its_place(tmp_path: Path, text: bytes, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InvalidValueError) as caught:
        load(path)
    assert f"{caught.value}".startswith(f"{path}: {message}") or message in f"{caught.value}"
    assert caught.value.hint
    assert [f"{error}" for error in problems(path)] == [f"{caught.value}"]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="there is no such file") as caught:
        load(tmp_path / "xdplb.toml")
    assert "xdplb.example.toml" in caught.value.hint
    assert len(problems(tmp_path / "xdplb.toml")) == 1


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="is a directory"):
        load(tmp_path)


def test_a_pipe_is_no_file_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotReadyError, match="is no regular file"):
        load(tmp_path / "pipe")


def test_a_link_to_itself_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(NotReadyError, match="cannot be read: Too many levels"):
        load(tmp_path / "loop")


def test_a_file_that_may_not_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise PermissionError

    path = write(tmp_path, LEAST)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(NotReadyError, match="may not be read") as caught:
        load(path)
    assert "root" in caught.value.hint


@pytest.mark.parametrize(
    ("mode", "message"), [(0o660, "group"), (0o606, "everybody"), (0o666, "everybody")]
)
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int, message: str) -> None:
    path = write(tmp_path, LEAST)
    path.chmod(mode)
    with pytest.raises(NotReadyError, match=f"{message}.* may write it") as caught:
        load(path)
    assert caught.value.hint == f"chmod go-w {path}"
    path.chmod(mode & ~(stat.S_IWGRP | stat.S_IWOTH))
    assert load(path)


def test_a_file_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, LEAST)
    if os.geteuid() == 0:
        os.chown(path, STRANGER, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    with pytest.raises(NotReadyError, match=r"belongs to user \d+") as caught:
        load(path)
    assert caught.value.hint == f"chown root {path}"


def test_a_file_that_others_may_replace_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "a b"
    directory.mkdir()
    path = write(directory, LEAST)
    directory.chmod(0o777)
    with pytest.raises(NotReadyError, match="everybody may replace it") as caught:
        load(path)
    assert caught.value.hint == f"chmod o-w '{directory}'"
    directory.chmod(0o1777)
    assert load(path)


def test_a_link_is_looked_at_on_both_ends(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "link.toml").symlink_to(write(tmp_path / "open", LEAST))
    assert load(tmp_path / "link.toml")
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(NotReadyError, match="everybody may replace it"):
        load(tmp_path / "link.toml")


def test_who_may_write_does_not_hide_what_is_written(tmp_path: Path) -> None:
    path = write(tmp_path, LEAST + "wieght = 1\n")
    path.chmod(0o666)
    assert [type(error) for error in problems(path)] == [NotReadyError, InvalidValueError]
    path.write_text("a = ")
    assert [type(error) for error in problems(path)] == [NotReadyError, InvalidValueError]
