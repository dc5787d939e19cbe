"""BCC in a process of its own: C text in, instructions out.

An error in LLVM's code generator ends the whole process without an exception, and BCC
changes its working directory and keeps 60 MB of LLVM: none of that may happen to ``up``.
The child only compiles. It loads nothing, so the maps are created by whoever asked, at
the size that was asked for, or are the ones that are running.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xdplb.errors import BccMissingError, CompileError
from xdplb.kernel import toolchain
from xdplb.kernel.closing import Closing
from xdplb.supported import next_step

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

EXIT_BCC_MISSING: Final = 3
EXIT_REFUSED: Final = 4
_LAST_LINES: Final = 15

_CLONE_NEWNS: Final = 0x20000
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class MapType:
    """What the compiler knows of a map: sizes in bytes, and its type information."""

    key_size: int
    value_size: int
    entries: int
    btf_key: int
    btf_value: int


@dataclass(frozen=True, slots=True)
class ObjectCode:
    """A compiled program.

    Attributes:
        instructions: With ``relocations`` still to be done.
        relocations: Map name by the index of the instruction that loads the map.
        maps: The maps that the text declares.
        btf: Type information of the maps, for tools that print them.
        compiler: The version of BCC.
    """

    instructions: bytes
    relocations: dict[int, str]
    maps: dict[str, MapType]
    btf: bytes
    compiler: str


class Compiler(Closing):
    """A child that has BCC ready. Started early, it loads LLVM while others work."""

    def __init__(self, headers: Path) -> None:
        """Start the child.

        Args:
            headers: The directory that stands in for the kernel's headers.
        """
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "xdplb.kernel.compiler"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "BCC_KERNEL_SOURCE": f"{headers}",
                "PYTHONPATH": os.pathsep.join(
                    [f"{Path(__file__).parents[2]}", *filter(None, [os.environ.get("PYTHONPATH")])]
                ),
            },
        )

    def close(self) -> None:
        """End the child, whatever it is doing."""
        self._child.kill()
        self._child.communicate()

    def compile(self, text: str, flags: Sequence[str], function: str) -> ObjectCode:
        """Compile ``function`` of ``text``. Can be called once.

        Raises:
            BccMissingError: There is no BCC, or another package has its name.
            CompileError: With the compiler's last lines.
        """
        job = json.dumps({"text": text, "flags": list(flags), "function": function})
        output, noise = self._child.communicate(job.encode())
        version, _, answer = output.decode().partition("\n")
        lines = [line for line in noise.decode(errors="replace").splitlines() if line.strip()]
        if self._child.returncode == EXIT_BCC_MISSING:
            raise BccMissingError(lines[-1] if lines else "BCC cannot be loaded")
        if self._child.returncode or not answer:
            if any(os.strerror(errno.EMFILE) in line for line in lines):
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            raise CompileError(
                "\n".join(["the XDP program does not compile:", *lines[-_LAST_LINES:]]),
                next_step(
                    version, f"this is a fault of xdplb or of BCC {version}: please report it"
                ),
            )
        return _from_json(json.loads(answer), version)


def _from_json(answer: dict[str, Any], version: str) -> ObjectCode:
    return ObjectCode(
        base64.b64decode(answer["instructions"]),
        {int(index): name for index, name in answer["relocations"].items()},
        {name: MapType(*sizes) for name, sizes in answer["maps"].items()},
        base64.b64decode(answer["btf"]),
        version,
    )


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def _hide_kernel_symbols() -> None:
    """Keep BCC from reading /proc/kallsyms, which no XDP program needs: 0.14 s of 0.48.

    Only this process sees it hidden (a mount namespace of its own). Where that is not
    allowed, compiling takes longer and nothing else changes.
    """
    libc = ctypes.CDLL(None)
    if libc.unshare(_CLONE_NEWNS) == 0:
        private = libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
        if private == 0:
            libc.mount(b"/dev/null", b"/proc/kallsyms", None, _MS_BIND, None)


def _give_up(reason: str) -> NoReturn:
    sys.stderr.write(f"{reason}\n")
    sys.exit(EXIT_BCC_MISSING)


def _load_bcc() -> Any:  # noqa: ANN401 - bcc has no types
    try:
        import bcc  # noqa: PLC0415 - only the child pays for it
    except ImportError as error:
        _give_up(f"BCC's Python module cannot be loaded: {error}")
    if not hasattr(bcc, "BPF"):
        _give_up(f"the module bcc at {bcc.__file__} is another package of that name")
    return bcc


def _compile(bcc: Any, job: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - bcc has no types
    from xdplb.kernel import libbpf  # noqa: PLC0415 - only the child, after BCC is there

    flags = [*job["flags"], *toolchain.flags(toolchain.llvm())]
    try:
        module = bcc.BPF(text=job["text"], cflags=flags)
    except Exception:  # noqa: BLE001 - BCC raises nothing better; clang has said why
        sys.exit(EXIT_REFUSED)
    code = module.dump_func(job["function"])
    names: dict[int, str] = {}
    maps: dict[str, tuple[int, int, int, int, int]] = {}
    btf = b""
    handle = ctypes.c_void_p(module.module)
    for number in range(bcc.lib.bpf_num_tables(handle)):
        fd = bcc.lib.bpf_table_fd_id(handle, ctypes.c_size_t(number))
        info = libbpf.map_info(fd)
        name = info.name.decode()
        names[fd] = name
        maps[name] = (
            info.key_size,
            info.value_size,
            info.max_entries,
            info.btf_key_type_id,
            info.btf_value_type_id,
        )
        if info.btf_id and not btf:
            btf = libbpf.btf_bytes(info.btf_id)
    relocations = {index: names[fd] for index, fd in map_loads(code)}
    return {
        "instructions": base64.b64encode(code).decode(),
        "relocations": relocations,
        "maps": maps,
        "btf": base64.b64encode(btf).decode(),
    }


def map_loads(code: bytes) -> list[tuple[int, int]]:
    """Find the instructions that load a map: their indexes, and the descriptors in them."""
    load_64_bit, map_descriptor = 0x18, 1
    found = []
    index = 0
    while index < len(code) // 8:
        opcode, registers = code[index * 8], code[index * 8 + 1]
        if opcode == load_64_bit and registers >> 4 == map_descriptor:
            found.append(
                (index, int.from_bytes(code[index * 8 + 4 : index * 8 + 8], sys.byteorder))
            )
        index += 2 if opcode == load_64_bit else 1
    return found


def _main() -> None:
    """Compile what stands on stdin.

    On stdout comes the version of BCC, a line, and if the compiler takes it, one JSON object.
    """
    _die_with_parent()
    _hide_kernel_symbols()
    answer_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # BCC writes to stdout too
    bcc = _load_bcc()
    job = sys.stdin.read()
    if not job:
        return
    print(toolchain.version(bcc), file=answer_to, flush=True)
    json.dump(_compile(bcc, json.loads(job)), answer_to)
    answer_to.close()


if __name__ == "__main__":
    _main()
