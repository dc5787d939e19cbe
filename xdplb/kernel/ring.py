"""The reading end of a ring buffer (kernel 5.8), by libbpf."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
from contextlib import suppress
from typing import Final

from xdplb.kernel import libbpf
from xdplb.kernel.closing import Closing

_CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_BATCH: Final = 4096
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ring(Closing):
    """Hands out what programs write into a map, in the order that they do."""

    def __init__(self, map_fd: int) -> None:
        """Look at the map, which has to stay open."""
        self._map_fd = map_fd
        self._taken: list[bytes] = []
        self._callback = _CALLBACK(self._take)
        new = libbpf.function("ring_buffer__new")
        new.restype = ctypes.c_void_p
        self._ring = ctypes.c_void_p(new(map_fd, self._callback, None, None))
        if not self._ring:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def _take(self, context: int | None, data: int, size: int) -> int:
        del context
        self._taken.append(ctypes.string_at(data, size))
        return 0 if len(self._taken) < _BATCH else -errno.EINTR

    def close(self) -> None:
        """Look at it no more."""
        if self._ring:
            libbpf.function("ring_buffer__free")(self._ring)
            self._ring = ctypes.c_void_p()

    def wait(self, seconds: float) -> list[bytes]:
        """Wait for records, but not longer than so long; more may be left.

        What a signal's handler raises would be lost in the callback, so signals wait for the end
        of that.
        """
        select.select([self._map_fd], [], [], seconds)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            with suppress(InterruptedError):
                libbpf.call("ring_buffer__consume", self._ring)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        taken, self._taken = self._taken, []
        return taken
