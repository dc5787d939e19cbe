"""Something that takes a while to find out, found out once for all who ask at the same time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_Value = TypeVar("_Value")

GOOD_FOR_S: Final = 0.9
"""A little less than a second: who asks every second always hears something new."""
_REST: Final = 4
"""How much longer than it took to find out, so that asking again and again costs a fifth."""


class Recent(Generic[_Value]):
    """A value that is found out when it is asked for, and good for about a second."""

    def __init__(
        self, find: Callable[[], Awaitable[_Value]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin without a value.

        Args:
            find: Finds it out; never runs twice at a time.
            clock: Seconds.
        """
        self._find = find
        self._clock = clock
        self._task: asyncio.Task[_Value] | None = None
        self._good_until = float("-inf")

    async def get(self) -> _Value:
        """The value, or what ``find`` raised.

        One who goes away does not take it from the others.
        """
        if self._task is None or (self._task.done() and self._clock() >= self._good_until):
            self._task = asyncio.create_task(self._find_out())
        return await asyncio.shield(self._task)

    async def close(self) -> None:
        """Return when nothing is being found out any more."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _find_out(self) -> _Value:
        began = self._clock()
        try:
            return await self._find()
        finally:
            now = self._clock()
            self._good_until = now + max(GOOD_FOR_S, _REST * (now - began))
