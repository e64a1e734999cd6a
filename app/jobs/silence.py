"""How long each lease has gone without a renewal, measured by a clock that does not jump.

A lease's end is written by the worker's clock and read by the web process's; either may be wrong or be set
while work goes on. So the end is above all a mark that every renewal changes: unchanged for a whole lease,
the worker is gone, whatever the clocks say. Where the clocks too say that it is over, two missed heartbeats
are enough: after a restart of everything nobody waits for a lease that ended long ago.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Held:
    """A lease as it stands in its row."""

    id: str
    owner: str
    until: datetime


@dataclass
class Silence:
    """Remembers, between looks, since when each lease has stood as it does."""

    lease_seconds: float
    heartbeat_seconds: float
    steady: Callable[[], float]
    _since: dict[str, tuple[Held, float]] = field(default_factory=dict)

    def lost(self, leases: Iterable[Held], now: datetime) -> list[Held]:
        """Those whose worker is gone. `leases` are all there are: others are forgotten."""
        moment = self.steady()
        before = self._since
        self._since = {
            held.id: before[held.id] if held.id in before and before[held.id][0] == held else (held, moment)
            for held in leases
        }
        return [held for held, since in self._since.values() if self._is_lost(held, moment - since, now)]

    def forget(self) -> None:
        """Begin anew: while nobody could look, nobody could renew either."""
        self._since.clear()

    def _is_lost(self, held: Held, silent_seconds: float, now: datetime) -> bool:
        enough = 2 * self.heartbeat_seconds if held.until < now else self.lease_seconds
        return silent_seconds >= min(enough, self.lease_seconds)
