"""Every error has an exit code, a place in the tree and a next step."""

from __future__ import annotations

import errno
import re
from inspect import getdoc

import pytest

from xdplb import errors
from xdplb.errors import (
    AttachError,
    BccMissingError,
    BusyError,
    CompileError,
    InterfaceNotFoundError,
    InvalidValueError,
    KernelError,
    LoadError,
    NotReadyError,
    PrivilegeError,
    SurroundingsError,
    TableError,
    UnreachableError,
    XdplbError,
    surroundings,
)

CODES = {
    XdplbError: 1,
    InvalidValueError: 2,
    NotReadyError: 3,
    InterfaceNotFoundError: 3,
    PrivilegeError: 3,
    BccMissingError: 3,
    SurroundingsError: 3,
    UnreachableError: 3,
    KernelError: 4,
    CompileError: 4,
    LoadError: 4,
    AttachError: 4,
    BusyError: 4,
    TableError: 4,
}


def _defined() -> dict[str, type[XdplbError]]:
    return {
        name: item
        for name, item in vars(errors).items()
        if isinstance(item, type) and issubclass(item, XdplbError)
    }


def test_every_error_class_has_its_exit_code_here() -> None:
    assert {item: item.exit_code for item in _defined().values()} == CODES


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn: dict[str, str] = {}
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([ │├└─]*)([A-Z]\w+Error)\b", line)
        if found is None:
            continue
        depth = len(found[1]) // 4 - 1
        parents[depth:] = [found[2]]
        drawn[found[2]] = parents[depth - 1] if depth else "Exception"
    assert drawn == {name: item.__bases__[0].__name__ for name, item in _defined().items()}


@pytest.mark.parametrize(
    "error", [InterfaceNotFoundError("eth9"), PrivilegeError("fly"), BccMissingError("no bcc")]
)
def test_an_error_that_words_itself_has_a_hint(error: XdplbError) -> None:
    assert error.hint
    assert not error.hint.endswith(".")


@pytest.mark.parametrize("error", _defined().values())
def test_an_error_class_says_what_it_means(error: type[XdplbError]) -> None:
    assert getdoc(error)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EMFILE, "too many"), "cannot open what it needs: too many"),
        (OSError(errno.ENOSPC, "full"), "output cannot be written: full"),
        (FileNotFoundError(errno.ENOENT, "gone", "/proc/self/status"), "/proc/self/status cannot"),
        (FileNotFoundError(errno.ENOENT, "gone", "/sys/devices/x"), "/sys/devices/x cannot"),
    ],
)
def test_what_surrounds_the_process_is_named(error: OSError, message: str) -> None:
    known = surroundings(error)
    assert known is not None
    assert message in f"{known}"
    assert known.hint


def test_any_other_error_of_the_system_is_a_bug() -> None:
    assert surroundings(OSError(errno.EINVAL, "no")) is None
    assert surroundings(FileNotFoundError(errno.ENOENT, "gone", "/home/proc/x")) is None
