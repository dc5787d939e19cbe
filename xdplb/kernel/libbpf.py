"""bpf(2) and XDP attachment through libbpf, which BCC brings along. Nothing of xdplb's maps.

Only what xdplb calls is declared. A call that fails raises OSError; whoever knows what the
call was for turns that into an error for the user.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from xdplb.errors import BccMissingError
from xdplb.kernel import toolchain
from xdplb.kernel.structures import (
    BatchOpts,
    BtfInfo,
    MapCreateOpts,
    MapInfo,
    ProgInfo,
    ProgLoadOpts,
    TestRunOpts,
    XdpAttachOpts,
    XdpMd,
    XdpQueryOpts,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MAP_TYPE_HASH: Final = 1
MAP_TYPE_ARRAY: Final = 2
MAP_TYPE_PERCPU_ARRAY: Final = 6
MAP_TYPE_LRU_HASH: Final = 9
MAP_TYPE_RINGBUF: Final = 27
MAP_MMAPABLE: Final = 1 << 10
PROG_TYPE_XDP: Final = 6
ATTACH_TYPE_XDP: Final = 37

NOEXIST: Final = 1

XDP_UPDATE_IF_NOEXIST: Final = 1
XDP_SKB_MODE: Final = 2
XDP_DRV_MODE: Final = 4
XDP_REPLACE: Final = 16

FUNCTIONS: Final = (
    "bpf_btf_get_fd_by_id",
    "bpf_btf_load",
    "bpf_map_create",
    "bpf_map_delete_elem",
    "bpf_map_get_fd_by_id",
    "bpf_map_lookup_batch",
    "bpf_map_lookup_elem",
    "bpf_map_update_batch",
    "bpf_map_update_elem",
    "bpf_obj_get_info_by_fd",
    "bpf_prog_bind_map",
    "bpf_prog_get_fd_by_id",
    "bpf_prog_get_next_id",
    "bpf_prog_load",
    "bpf_prog_test_run_opts",
    "bpf_xdp_attach",
    "bpf_xdp_query",
    "ring_buffer__consume",
    "ring_buffer__free",
    "ring_buffer__new",
)
"""Of the library, all that are called, here and in ``xdplb.kernel.ring``."""

_LIVE_FRAMES: Final = 1 << 1

_PRINT_CALLBACK: Final = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p
)


class _Messages:
    """What libbpf would have written to stderr."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._vsnprintf = ctypes.CDLL(None).vsnprintf
        self.callback = _PRINT_CALLBACK(self._take)

    def _take(self, level: int, template: bytes, arguments: int | None) -> int:
        if level <= 1:
            buffer = ctypes.create_string_buffer(512)
            self._vsnprintf(
                buffer, ctypes.c_size_t(512), ctypes.c_char_p(template), ctypes.c_void_p(arguments)
            )
            self.lines.append(buffer.value.decode(errors="replace").strip())
        return 0


_messages = _Messages()


@cache
def _library() -> ctypes.CDLL:
    for name in toolchain.LIBRARIES:
        try:
            library = ctypes.CDLL(name, use_errno=True)
            library.libbpf_set_print.restype = ctypes.c_void_p
            library.libbpf_set_print(_messages.callback)
        except (OSError, AttributeError):
            continue
        return library
    raise BccMissingError("libbpf, a part of the BCC installation, is not on this machine")


def missing() -> tuple[str, ...]:
    """The functions that are called, and that the library has not; all without a library."""
    try:
        library = _library()
    except BccMissingError:
        return FUNCTIONS
    return tuple(name for name in FUNCTIONS if not hasattr(library, name))


def function(name: str) -> Any:  # noqa: ANN401 - ctypes has no type for it
    """A function of the library.

    Raises:
        BccMissingError: It has none of that name.
    """
    found = getattr(_library(), name, None)
    if found is None:
        raise BccMissingError(f"libbpf, a part of the BCC installation, has no {name}: it is old")
    return found


def call(name: str, *arguments: Any) -> int:  # noqa: ANN401 - ctypes takes what C takes
    """Call a function that returns a number, below zero for an error.

    Raises:
        BccMissingError: The library has none of that name.
        OSError: The kernel said no.
    """
    result: int = function(name)(*arguments)
    if result < 0:
        code = ctypes.get_errno() if result == -1 else -result
        raise OSError(code, os.strerror(code))
    return result


def _sized(options: Any) -> Any:  # noqa: ANN401 - any of the structures above
    options.sz = ctypes.sizeof(options)
    return ctypes.byref(options)


@contextmanager
def kernel_messages() -> Iterator[list[str]]:
    """Collect what libbpf and the kernel's extended acknowledgements say meanwhile."""
    _messages.lines = []
    yield _messages.lines


def create_map(  # noqa: PLR0913 - the attributes of a map
    kind: int,
    name: str,
    key_size: int,
    value_size: int,
    max_entries: int,
    *,
    flags: int = 0,
    btf: tuple[int, int, int] = (0, 0, 0),
) -> int:
    """Create a map and return its descriptor; ``btf`` is descriptor, key type, value type."""
    options = MapCreateOpts(
        map_flags=flags, btf_fd=btf[0], btf_key_type_id=btf[1], btf_value_type_id=btf[2]
    )
    return call(
        "bpf_map_create", kind, name.encode(), key_size, value_size, max_entries, _sized(options)
    )


def load_program(name: str, code: bytes, log_size: int = 0) -> tuple[int, str]:
    """Load an XDP program.

    Args:
        name: At most 15 characters.
        code: Instructions, with map descriptors in them.
        log_size: Bytes of verifier log wanted; 0 for none.

    Returns:
        Its descriptor, or a negative error number, and the verifier's log.
    """
    log = ctypes.create_string_buffer(log_size or 1)
    options = ProgLoadOpts(expected_attach_type=ATTACH_TYPE_XDP)
    if log_size:
        options.log_level, options.log_size = 1, log_size
        options.log_buf = ctypes.cast(log, ctypes.c_char_p)
    try:
        fd = call(
            "bpf_prog_load",
            PROG_TYPE_XDP,
            name.encode(),
            b"GPL",
            code,
            ctypes.c_size_t(len(code) // 8),
            _sized(options),
        )
    except OSError as error:
        fd = -(error.errno or errno.EINVAL)
    return fd, log.value.decode(errors="replace")


def load_btf(data: bytes) -> int:
    """Load type information and return its descriptor."""
    return call("bpf_btf_load", data, len(data), None)


def bind_map(program_fd: int, map_fd: int) -> None:
    """Let the program hold a map that it does not mention (kernel 5.10)."""
    call("bpf_prog_bind_map", program_fd, map_fd, None)


def update(map_fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
    """Write one element."""
    call("bpf_map_update_elem", map_fd, key, value, ctypes.c_uint64(flags))


def lookup(map_fd: int, key: bytes, value_size: int) -> bytes | None:
    """Read one element of ``value_size`` bytes (all CPUs' of a per-CPU map); None without it."""
    value = ctypes.create_string_buffer(value_size)
    try:
        call("bpf_map_lookup_elem", map_fd, key, value)
    except FileNotFoundError:
        return None
    return value.raw


def delete(map_fd: int, key: bytes) -> bool:
    """Remove one element; False if it was not there."""
    try:
        call("bpf_map_delete_elem", map_fd, key)
    except FileNotFoundError:
        return False
    return True


def update_batch(map_fd: int, keys: bytes, values: bytes, count: int) -> None:
    """Write ``count`` elements, packed one after the other (kernel 5.6)."""
    done = ctypes.c_uint32(count)
    call("bpf_map_update_batch", map_fd, keys, values, ctypes.byref(done), _sized(BatchOpts()))


def insert_each(map_fd: int, keys: bytes, values: bytes, count: int) -> dict[int, int]:
    """Write ``count`` elements, packed one after the other, but none that is there already.

    The kernel's batch has no such condition, so this is one call for each, as lean as can be.

    Returns:
        The error numbers of those that were not written, by their places.
    """
    if not count:
        return {}
    key_size, value_size = len(keys) // count, len(values) // count
    key, value = _place(keys), _place(values)
    insert = _INSERT(("bpf_map_update_elem", _library()))
    refused = {}
    for number in range(count):
        result = insert(map_fd, key, value, NOEXIST)
        if result:
            refused[number] = ctypes.get_errno() if result == -1 else -result
        key += key_size
        value += value_size
    return refused


_INSERT: Final = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_uint64,
    use_errno=True,
)


def _place(data: bytes) -> int:
    """Where ``data`` lies in memory, as long as somebody holds it."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


def lookup_all(map_fd: int, key_size: int, value_size: int, room: int) -> tuple[bytes, bytes]:
    """Read a whole map of at most ``room`` elements: all keys, all values (kernel 5.6)."""
    keys = ctypes.create_string_buffer(key_size * room)
    values = ctypes.create_string_buffer(value_size * room)
    cursor = ctypes.create_string_buffer(max(key_size, 4))
    count = ctypes.c_uint32(room)
    with suppress(FileNotFoundError):  # the end of the map, not an error
        call(
            "bpf_map_lookup_batch",
            map_fd,
            None,
            cursor,
            keys,
            values,
            ctypes.byref(count),
            _sized(BatchOpts()),
        )
    return keys.raw[: count.value * key_size], values.raw[: count.value * value_size]


def program_ids() -> Iterator[int]:
    """The ids of all loaded programs."""
    number = ctypes.c_uint32(0)
    while True:
        try:
            call("bpf_prog_get_next_id", number, ctypes.byref(number))
        except FileNotFoundError:
            return
        yield number.value


def program_fd(number: int) -> int | None:
    """A descriptor of the program with that id; None if it has just gone."""
    try:
        return call("bpf_prog_get_fd_by_id", number)
    except FileNotFoundError:
        return None


def map_fd(number: int) -> int | None:
    """A descriptor of the map with that id; None if it has just gone."""
    try:
        return call("bpf_map_get_fd_by_id", number)
    except FileNotFoundError:
        return None


def _info(fd: int, info: Any) -> None:  # noqa: ANN401 - any of the structures above
    size = ctypes.c_uint32(ctypes.sizeof(info))
    call("bpf_obj_get_info_by_fd", fd, ctypes.byref(info), ctypes.byref(size))


def program_info(fd: int) -> tuple[ProgInfo, list[int]]:
    """What the kernel says of a program, and the ids of its maps."""
    info = ProgInfo()
    _info(fd, info)
    ids = (ctypes.c_uint32 * max(info.nr_map_ids, 1))()
    again = ProgInfo(nr_map_ids=info.nr_map_ids, map_ids=ctypes.addressof(ids))
    _info(fd, again)
    return again, list(ids)[: again.nr_map_ids]


def map_info(fd: int) -> MapInfo:
    """What the kernel says of a map."""
    info = MapInfo()
    _info(fd, info)
    return info


def btf_bytes(number: int) -> bytes:
    """The type information with that id."""
    fd = call("bpf_btf_get_fd_by_id", number)
    try:
        info = BtfInfo()
        _info(fd, info)
        data = ctypes.create_string_buffer(info.btf_size)
        _info(fd, BtfInfo(btf=ctypes.addressof(data), btf_size=info.btf_size))
        return data.raw
    finally:
        os.close(fd)


def xdp_attach(ifindex: int, program_fd: int, flags: int, old_fd: int | None = None) -> None:
    """Attach a program to an interface, or detach with ``program_fd`` -1.

    Args:
        ifindex: The interface.
        program_fd: The program.
        flags: XDP_* above.
        old_fd: With XDP_REPLACE, the program that must be there now.
    """
    options = XdpAttachOpts(old_prog_fd=old_fd if old_fd is not None else 0)
    call("bpf_xdp_attach", ifindex, program_fd, flags, _sized(options) if old_fd else None)


def xdp_query(ifindex: int) -> tuple[int, int]:
    """The ids of the native and the generic program on an interface; 0 for none."""
    options = XdpQueryOpts()
    call("bpf_xdp_query", ifindex, 0, _sized(options))
    return options.drv_prog_id, options.skb_prog_id


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """What BPF_PROG_TEST_RUN says of a run.

    Attributes:
        returned: What the program returned, the last time.
        packet: What it left of the packet; empty for live frames.
        duration_ns: How long one run took on average, in whole nanoseconds.
    """

    returned: int
    packet: bytes
    duration_ns: int


def run_program(  # noqa: PLR0913 - what can be said of a run
    program_fd: int,
    packet: bytes,
    *,
    repeat: int = 1,
    room: int = 4096,
    live_batch: int = 0,
    ifindex: int = 0,
) -> ProgramRun:
    """Run an XDP program on ``packet``, without an interface.

    Args:
        program_fd: The program.
        packet: At least 14 bytes. It is not restored between the runs.
        repeat: How often to run.
        room: The largest packet that may come out.
        live_batch: Send what the program redirects, in batches of so many frames, from
            the current network namespace (kernel 5.18); 0 sends nothing.
        ifindex: What the program is told of where the packet came in; 0 for loopback.
    """
    data_out = ctypes.create_string_buffer(0 if live_batch else room)
    data_in = ctypes.create_string_buffer(packet, len(packet))
    options = TestRunOpts(
        data_in=ctypes.addressof(data_in), data_size_in=len(packet), repeat=repeat
    )
    context = XdpMd(data_end=len(packet), ingress_ifindex=ifindex)
    if ifindex:
        options.ctx_in, options.ctx_size_in = ctypes.addressof(context), ctypes.sizeof(context)
    if live_batch:
        options.flags, options.batch_size = _LIVE_FRAMES, live_batch
    else:
        options.data_out, options.data_size_out = ctypes.addressof(data_out), room
    call("bpf_prog_test_run_opts", program_fd, _sized(options))
    return ProgramRun(options.retval, data_out.raw[: options.data_size_out], options.duration)
