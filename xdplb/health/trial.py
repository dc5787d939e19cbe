"""How a backend that nobody can ask comes back: traffic is let at it again, on trial.

Each trial that fails makes the pause before the next one twice as long. The pause is short
again only after the backend has served for as long as the last one lasted, so that a backend
that answers now and then is tried ever more rarely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_PAUSE_S: Final = 10.0
LAST_PAUSE_S: Final = 300.0


@dataclass(slots=True)
class Trial:
    """Where one backend stands.

    Attributes:
        healthy: Traffic may be sent to it.
        on_trial: It has not answered since it was let at traffic again.
        pause: The last pause in seconds; 0 if there was none, or it is forgotten.
        since: When it was taken down, let at traffic, or answered first after that.
    """

    healthy: bool = True
    on_trial: bool = False
    pause: float = 0.0
    since: float = 0.0

    def fail(self, now: float) -> None:
        """Take it down, for a pause."""
        self.healthy = self.on_trial = False
        self.pause = min(self.pause * 2, LAST_PAUSE_S) if self.pause else FIRST_PAUSE_S
        self.since = now

    def begin(self, now: float) -> bool:
        """Let traffic at it if the pause is over.

        Returns:
            Whether a trial began.
        """
        if self.healthy or now - self.since < self.pause:
            return False
        self.healthy = self.on_trial = True
        self.since = now
        return True

    def answer(self, now: float) -> bool:
        """Take note of an answer, which ends a trial, and a pause too.

        Returns:
            Whether it was down.
        """
        was_down = not self.healthy
        if was_down or self.on_trial:
            self.healthy, self.on_trial = True, False
            self.since = now
        elif now - self.since >= self.pause:
            self.pause = 0.0
        return was_down
