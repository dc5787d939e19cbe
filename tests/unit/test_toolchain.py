"""Versions of BCC and of LLVM: which are tested, what differs, and what is said of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from xdplb import source
from xdplb.errors import CompileError, LoadError
from xdplb.kernel import features, libbpf, program, toolchain
from xdplb.kernel.compiler import Compiler, ObjectCode
from xdplb.supported import FIRST, LAST, RANGE, doubt

if TYPE_CHECKING:
    from pathlib import Path

OLD = "7f00-7f01 r-xp 0 08:01 1 /usr/lib/x86_64-linux-gnu/libLLVM-14.so.1\n"
NEW = (
    "7f00-7f01 r-xp 0 08:01 1 /usr/lib/x86_64-linux-gnu/libclang-cpp.so.19.1\n"
    "7f02-7f03 r-xp 0 08:01 2 /usr/lib/x86_64-linux-gnu/libLLVM.so.19.1\n"
)  # fmt: skip


@pytest.mark.parametrize("version", ["0.26.0", "0.31.0+ds", "{}.{}.9".format(*LAST)])
def test_nothing_is_said_against_a_tested_version(version: str) -> None:
    assert doubt(version) == ""


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("0.25.0", "BCC 0.25.0 is old: "),
        (f"{LAST[0]}.{LAST[1] + 1}.0", "is new: "),
        ("1.0", "BCC 1.0 is new: "),
        ("", "does not say which version it is: "),
    ],
)
def test_another_version_is_named_with_those_that_are_tested(version: str, says: str) -> None:
    assert says in doubt(version)
    assert doubt(version).endswith("xdplb is tested with {}.{} to {}.{}".format(*FIRST, *LAST))


@pytest.mark.parametrize(
    ("mappings", "major"), [(OLD, 14), (NEW, 19), ("7f00-7f01 r-xp 0 08:01 1 /lib/libc.so.6", None)]
)
def test_llvm_is_known_by_the_library_that_is_loaded(mappings: str, major: int | None) -> None:
    assert toolchain.llvm(mappings) == major


@pytest.mark.parametrize(
    ("major", "flags"),
    [
        (14, ("-Xclang", "-disable-llvm-passes")),
        (15, ()),
        (19, ()),
        (21, ("-O1",)),
        (None, ()),
    ],
)
def test_clang_is_told_what_suits_its_llvm(major: int | None, flags: tuple[str, ...]) -> None:
    assert toolchain.flags(major) == flags


@pytest.fixture
def refused_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module in BCC's place, which takes no program."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}")
    return tmp_path / "bcc.py"


def said_of(module: Path, text: str) -> CompileError:
    module.write_text(f"{text}\nlib = None\ndef BPF(**_): raise SystemError\n")
    with Compiler(source.headers()) as compiler, pytest.raises(CompileError) as caught:
        compiler.compile("", [], "main")
    return caught.value


def test_a_program_that_does_not_compile_is_reported_with_the_version_of_bcc(
    refused_by: Path,
) -> None:
    error = said_of(refused_by, '__version__ = "0.26.0"')
    assert error.hint == "this is a fault of xdplb or of BCC 0.26.0: please report it"


@pytest.mark.parametrize(
    ("text", "says"),
    [('__version__ = "9.1.0"', "BCC 9.1.0 is new"), ("", "BCC does not say which version it is")],
)
def test_a_version_out_of_the_range_is_suspected_first(
    refused_by: Path, text: str, says: str
) -> None:
    assert said_of(refused_by, text).hint == f"{says}: {RANGE}; one of those may do"


@pytest.mark.parametrize(
    ("version", "says"),
    [("0.26.0", "xdplb on this kernel: please report it"), ("9.1.0", "one of those may do")],
)
def test_a_program_that_the_kernel_refuses_may_be_the_compilers_fault(
    monkeypatch: pytest.MonkeyPatch, version: str, says: str
) -> None:
    monkeypatch.setattr(libbpf, "load_program", lambda *_: (-22, "R0 !read_ok"))
    monkeypatch.setattr(features, "lacking", str)
    with pytest.raises(LoadError) as caught:
        program.load({4: ObjectCode(b"", {}, {}, b"", version)}, program.Descriptors())
    assert caught.value.hint.endswith(says)
