"""Every error a user can meet, each with the exit code and the next step.

::

    XdplbError
    ├── InvalidValueError       2  the request is wrong
    ├── NotReadyError           3  the machine is not ready
    │   ├── InterfaceNotFoundError
    │   ├── PrivilegeError
    │   ├── BccMissingError
    │   ├── SurroundingsError
    │   └── UnreachableError
    └── KernelError             4  the kernel said no
        ├── CompileError
        ├── LoadError
        ├── AttachError
        │   └── BusyError
        └── TableError

Anything else that is raised is a bug, and shows its traceback (exit code 1).
"""

from __future__ import annotations

import errno
from typing import Final

_NO_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class XdplbError(Exception):
    """Something that the user can act on.

    Attributes:
        exit_code: What the command exits with.
        hint: What to do next, one sentence without a full stop; empty if there is nothing.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InvalidValueError(XdplbError):
    """A value in the request cannot be used."""

    exit_code = 2


class NotReadyError(XdplbError):
    """The request makes sense, but not on this machine as it is now."""

    exit_code = 3


class InterfaceNotFoundError(NotReadyError):
    """No interface of that name exists in the network namespace."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"no interface named {name!r} in this network namespace",
            "'ip -br link' lists the names; --netns looks into another namespace",
        )


class PrivilegeError(NotReadyError):
    """The process may not do what the command needs."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"no privilege to {what}",
            "run it as root, for example with sudo; root of a container or of a user namespace "
            "needs CAP_SYS_ADMIN and CAP_NET_ADMIN of the machine",
        )


class BccMissingError(NotReadyError):
    """The compiler is not installed, or another package has its name."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            reason,
            "install it with 'apt-get install python3-bpfcc' (Debian, Ubuntu) or "
            "'dnf install python3-bcc' (Fedora); a virtual environment needs "
            "--system-site-packages to see it",
        )


class SurroundingsError(NotReadyError):
    """What every process takes for granted is not there."""


class UnreachableError(NotReadyError):
    """A backend has no way that the balancer could use."""


class KernelError(XdplbError):
    """The kernel, or the compiler that serves it, refused."""

    exit_code = 4


class CompileError(KernelError):
    """The program did not compile."""


class LoadError(KernelError):
    """The kernel did not take the program or a map."""


class AttachError(KernelError):
    """The interface did not take the program, or did not let it go."""


class BusyError(AttachError):
    """Somebody else changed the interface at the same time."""


class TableError(KernelError):
    """A map could not be read or written, or is not what it should be."""


def surroundings(error: OSError) -> SurroundingsError | None:
    """What a system call's error says of the process's surroundings; None for any other one."""
    if error.errno in _NO_FILES:
        return SurroundingsError(
            f"the process cannot open what it needs: {error.strerror}",
            "raise the limit, for example with 'ulimit -n 1024'",
        )
    if error.errno in _NO_ROOM:
        return SurroundingsError(
            f"the output cannot be written: {error.strerror}",
            "what the command was asked to do is done; 'xdplb status' shows it",
        )
    if f"{error.filename}".startswith(("/proc/", "/sys/")):
        return SurroundingsError(
            f"{error.filename} cannot be read: {error.strerror}",
            "/proc and /sys have to be mounted",
        )
    return None
