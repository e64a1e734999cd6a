"""How long each lease has gone without a renewal, measured by a clock that does not jump.

A lease's end is written by the worker's clock and read by the web process's; either may be wrong or be set
while work goes on. So the end is above all a mark that every renewal changes: unchanged for a whole lease,
the worker is gone, whatever the clocks say. Where the clocks too say that it is over, two missed heartbeats
are enough: after a restart of everything nobody waits for a lease that ended long ago.

Silence counts only as far as somebody listened. A look that comes late has met a database, or a whole
machine, that stood still, and then no worker could renew either: it counts as one heartbeat, so that each
worker has the time until the next look to be heard.
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
    """Remembers, between looks, for how long each lease has stood as it does."""

    lease_seconds: float
    heartbeat_seconds: float
    look_seconds: float  # between two looks, as a rule
    steady: Callable[[], float]
    _silent: dict[str, tuple[Held, float]] = field(default_factory=dict)
    _looked: float = field(init=False)

    def __post_init__(self) -> None:
        self._looked = self.steady()

    def lost(self, leases: Iterable[Held], now: datetime) -> list[Held]:
        """Those whose worker is gone. `leases` are all there are: others are forgotten."""
        moment = self.steady()
        passed = moment - self._looked
        is_late = passed > self.look_seconds + self.heartbeat_seconds
        heard = self.heartbeat_seconds if is_late else passed
        before, self._looked = self._silent, moment
        self._silent = {
            held.id: (held, before[held.id][1] + heard)
            if held.id in before and before[held.id][0] == held
            else (held, 0.0)
            for held in leases
        }
        return [held for held, seconds in self._silent.values() if self._is_lost(held, seconds, now)]

    def forget(self) -> None:
        """Begin anew: while nobody could look, nobody could renew either."""
        self._silent.clear()

    def _is_lost(self, held: Held, silent_seconds: float, now: datetime) -> bool:
        enough = 2 * self.heartbeat_seconds if held.until < now else self.lease_seconds
        return silent_seconds >= min(enough, self.lease_seconds)
