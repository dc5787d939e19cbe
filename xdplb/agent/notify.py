"""What systemd is told (sd_notify(3)): a datagram to a socket that it names."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_MICROSECONDS: Final = 1_000_000


class Notifier:
    """The way to the service manager; without one, everything said is lost, as it should be."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Find out whether somebody listens."""
        self._address = environment.get("NOTIFY_SOCKET", "")
        pid = environment.get("WATCHDOG_PID", "")
        microseconds = environment.get("WATCHDOG_USEC", "")
        mine = pid in {"", f"{os.getpid()}"} and microseconds.isdigit()
        self.watchdog_s = int(microseconds) / _MICROSECONDS if mine else 0.0
        """Seconds within which it wants to hear; 0 for never."""
        self._status = ""

    def ready(self, status: str) -> None:
        """Everything runs."""
        self._status = status
        self._say(READY=1, STATUS=status)

    def reloading(self) -> None:
        """The configuration is being read again; ``ready`` ends that (``Type=notify-reload``)."""
        self._say(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; said when it is another one."""
        if text != self._status:
            self._status = text
            self._say(STATUS=text)

    def alive(self) -> None:
        """The watchdog need not bark."""
        self._say(WATCHDOG=1)

    def stopping(self) -> None:
        """The end has begun."""
        self._say(STOPPING=1)

    def _say(self, **fields: object) -> None:
        if not self._address:
            return
        text = "\n".join(f"{name}={value}".replace("\n", " ") for name, value in fields.items())
        name = self._address
        address = f"\0{name[1:]}" if name.startswith("@") else name
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            try:
                sock.sendto(text.encode(), address)
            except OSError:
                return  # it has gone; nothing here depends on it
