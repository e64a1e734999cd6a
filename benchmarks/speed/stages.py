"""Seconds and the highest resident memory of every stage of a computation in this process."""

import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stages:
    """`begin` ends the stage before; Linux only, as it resets the kernel's own peak for this process."""

    found: list[dict[str, float | str]] = field(default_factory=list)
    _name: str | None = None
    _wall: float = 0.0
    _cpu: float = 0.0

    def begin(self, name: str) -> None:
        """A no-op while the stage of this name goes on."""
        if name == self._name:
            return
        self.end()
        Path("/proc/self/clear_refs").write_text("5")
        self._name, self._wall, self._cpu = name, time.monotonic(), time.process_time()

    def end(self) -> None:
        if self._name is None:
            return
        self.found.append(
            {
                "stage": self._name,
                "seconds": time.monotonic() - self._wall,
                "cpu_seconds": time.process_time() - self._cpu,
                "peak_bytes": peak_bytes(),
            }
        )
        self._name = None


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return 1024 * int(kilobytes)
