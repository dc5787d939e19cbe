"""The program and its maps in the kernel: load, attach, find again, detach."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Final

from xdplb.errors import AttachError, BusyError, LoadError, PrivilegeError, surroundings
from xdplb.facts import Attached
from xdplb.kernel import features, libbpf
from xdplb.kernel.joining import join
from xdplb.model import IPV4, IPV6, Mode
from xdplb.source import FUNCTION
from xdplb.supported import next_step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdplb.kernel.compiler import ObjectCode

_LOG_SIZE: Final = 1 << 20
_LOG_LINES: Final = 12
_FREE_WITHIN_S: Final = 1.0
_FREE_POLL_S: Final = 0.002

META: Final = "meta"
"""The map that every balancer has, with its own description."""

OF_A_TRACE: Final = ("trace_events", "trace_until", "traces")
"""The maps that a program has only while it is traced."""

SHARED: Final = frozenset({"interfaces", "reply_limits", "verdicts", *OF_A_TRACE})
"""The maps that IPv4 and IPv6 have in common; of all others each has its own."""

_MODE_FLAG: Final = {Mode.NATIVE: libbpf.XDP_DRV_MODE, Mode.GENERIC: libbpf.XDP_SKB_MODE}


class Descriptors:
    """Map descriptors by name, closed together."""

    def __init__(self) -> None:
        """Start with none."""
        self._fds: dict[str, int] = {}

    def add(self, name: str, fd: int) -> None:
        """Take over ``fd``."""
        self._fds[name] = fd

    def __getitem__(self, name: str) -> int:
        """The descriptor of the map ``name``."""
        return self._fds[name]

    def __contains__(self, name: str) -> bool:
        """Whether there is a map ``name``."""
        return name in self._fds

    def names(self) -> list[str]:
        """What there are, as the kernel knows them."""
        return list(self._fds)

    def close(self) -> None:
        """Close all of them; the maps live on where a program holds them."""
        while self._fds:
            os.close(self._fds.popitem()[1])

    def of(self, version: int) -> Maps:
        """The maps of one IP version, by their names in the program's text."""
        return Maps(self, version)


class Maps:
    """The maps of one IP version, by their names in the program's text."""

    def __init__(self, every: Descriptors, version: int) -> None:
        """Look at ``every`` as ``version`` does."""
        self._every = every
        self.version = version

    def add(self, name: str, fd: int) -> None:
        """Take over ``fd``."""
        self._every.add(map_name(name, self.version), fd)

    def __getitem__(self, name: str) -> int:
        """The descriptor of the map ``name``."""
        return self._every[map_name(name, self.version)]

    def __contains__(self, name: str) -> bool:
        """Whether there is a map ``name``."""
        return map_name(name, self.version) in self._every


def map_name(name: str, version: int) -> str:
    """What the kernel knows a map of the program's text by: those of IPv6 end in a 6."""
    return name if version == IPV4 or name in SHARED else f"{name}6"


def load(code: Mapping[int, ObjectCode], maps: Descriptors) -> int:
    """Put the maps into the program and load it; returns its descriptor.

    Args:
        code: The program for each IP version.
        maps: All that they name.

    Raises:
        LoadError: With the verifier's last lines.
        NotReadyError: The kernel is too old.
    """
    parts = {version: _relocated(item, maps.of(version)) for version, item in code.items()}
    instructions = join(parts[IPV4], parts[IPV6]) if len(parts) > 1 else next(iter(parts.values()))
    fd, log = libbpf.load_program(FUNCTION, instructions)
    if fd < 0:
        refused = OSError(-fd, os.strerror(-fd))
        if surroundings(refused):
            raise refused
        features.require()
        fd, log = libbpf.load_program(FUNCTION, instructions, _LOG_SIZE)
    if fd < 0:
        lines = [line for line in log.splitlines() if line and not line.startswith(";")]
        raise LoadError(
            "\n".join(
                [
                    f"the kernel does not load the program: {os.strerror(-fd)}",
                    *lines[-_LOG_LINES:],
                ]
            ),
            next_step(
                next(iter(code.values())).compiler,
                "this is a fault of xdplb on this kernel: please report it",
            ),
        )
    return fd


def _relocated(code: ObjectCode, maps: Maps) -> bytes:
    """The instructions of ``code`` with descriptors where it names maps."""
    instructions = bytearray(code.instructions)
    for index, name in code.relocations.items():
        instructions[index * 8 + 4 : index * 8 + 8] = maps[name].to_bytes(4, "little")
    return bytes(instructions)


def attach(ifindex: int, name: str, fd: int, mode: Mode, old_id: int | None) -> None:
    """Attach the program, only if the interface is as it was found.

    Args:
        ifindex: The interface.
        name: Its name, for messages.
        fd: The program.
        mode: NATIVE or GENERIC.
        old_id: The program of ours that it replaces; None if there was none.

    Raises:
        AttachError: The kernel's reason, or that somebody else was faster.
    """
    flags = _MODE_FLAG[mode]
    old_fd = libbpf.program_fd(old_id) if old_id else None
    flags |= libbpf.XDP_REPLACE if old_fd is not None else libbpf.XDP_UPDATE_IF_NOEXIST
    try:
        with libbpf.kernel_messages() as messages:
            libbpf.xdp_attach(ifindex, fd, flags, old_fd)
    except OSError as error:
        if error.errno in {errno.EBUSY, errno.EEXIST}:
            raise BusyError(
                f"another program was attached to {name} at the same time",
                "'xdplb status' shows who won; run this again if it was not what you wanted",
            ) from error
        raise AttachError(
            f"{name} does not take the program in {mode} mode: {_reason(messages, error)}",
            "--mode generic works on every interface, more slowly"
            if mode is Mode.NATIVE
            else "another interface may do",
        ) from error
    finally:
        if old_fd is not None:
            os.close(old_fd)


def detach(ifindex: int, name: str, program_id: int, mode: Mode) -> None:
    """Take the program off the interface, if it is still there.

    Raises:
        AttachError: It is still there afterwards, or another one is.
    """
    old_fd = libbpf.program_fd(program_id)
    if old_fd is None:
        return
    try:
        with libbpf.kernel_messages() as messages:
            libbpf.xdp_attach(ifindex, -1, _MODE_FLAG[mode] | libbpf.XDP_REPLACE, old_fd)
    except OSError as error:
        if attached(ifindex) is not None:
            raise AttachError(
                f"the program stays on {name}: {_reason(messages, error)}",
                f"'ip link set dev {name} xdp off' takes it off by force",
            ) from error
    finally:
        os.close(old_fd)
    left = attached(ifindex)
    if left is not None and left.program_id == program_id:
        raise AttachError(
            f"the program is still on {name}", f"'ip link set dev {name} xdp off' takes it off"
        )


def _reason(messages: list[str], error: OSError) -> str:
    """The kernel's own words where it gave any."""
    marker = "Kernel error message:"
    for line in messages:
        if marker in line:
            return line.split(marker, 1)[1].strip()
    return error.strerror or "no reason given"


def attached(ifindex: int) -> Attached | None:
    """What hangs on an interface; None for nothing, or for no interface."""
    try:
        native, generic = libbpf.xdp_query(ifindex)
    except OSError:
        return None
    if native:
        return Attached(native, Mode.NATIVE)
    return Attached(generic, Mode.GENERIC) if generic else None


def ours() -> list[int]:
    """The ids of all programs on this machine that have our name.

    Raises:
        PrivilegeError: The kernel does not let this process look.
    """
    found = []
    try:
        for number in libbpf.program_ids():
            fd = libbpf.program_fd(number)
            if fd is None:
                continue
            try:
                info, _ = libbpf.program_info(fd)
                if info.type == libbpf.PROG_TYPE_XDP and info.name.decode() == FUNCTION:
                    found.append(number)
            finally:
                os.close(fd)
    except PermissionError:
        raise PrivilegeError("look at the kernel's BPF programs") from None
    return found


def describe(number: int) -> str:
    """Words for a program that is not ours: ``program 31 (name, tag)``."""
    fd = libbpf.program_fd(number)
    if fd is None:
        return f"program {number}"
    try:
        info, _ = libbpf.program_info(fd)
    finally:
        os.close(fd)
    return f"program {number} ({info.name.decode() or 'no name'}, tag {bytes(info.tag).hex()})"


def tag(number: int) -> str:
    """The kernel's hash of the program."""
    fd = libbpf.program_fd(number)
    if fd is None:
        return ""
    try:
        return bytes(libbpf.program_info(fd)[0].tag).hex()
    finally:
        os.close(fd)


def map_ids(number: int) -> list[int]:
    """The ids of a program's maps; none if it has gone."""
    fd = libbpf.program_fd(number)
    if fd is None:
        return []
    try:
        return libbpf.program_info(fd)[1]
    finally:
        os.close(fd)


def await_freed(ids: Sequence[int]) -> None:
    """Wait until these maps are gone: the kernel frees them a little after the program."""
    deadline = time.monotonic() + _FREE_WITHIN_S
    for number in ids:
        while (fd := libbpf.map_fd(number)) is not None:
            os.close(fd)
            if time.monotonic() > deadline:
                return
            time.sleep(_FREE_POLL_S)


def open_maps(number: int) -> Descriptors:
    """Open the maps of a program: all of them, because it is held meanwhile.

    Raises:
        BusyError: It has gone.
    """
    program_fd = libbpf.program_fd(number)
    if program_fd is None:
        raise BusyError(
            "the balancer was taken down or replaced at the same time",
            "run this again; 'xdplb status' shows what is up now",
        )
    maps = Descriptors()
    try:
        for map_id in libbpf.program_info(program_fd)[1]:
            map_fd = libbpf.map_fd(map_id)
            if map_fd is not None:
                maps.add(libbpf.map_info(map_fd).name.decode(), map_fd)
    except BaseException:
        maps.close()
        raise
    finally:
        os.close(program_fd)
    return maps
