"""Wall time, and CPU time, which a busy machine does not stretch."""

import time


class Clock:
    """Seconds since it was made or last read."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def lap(self) -> tuple[float, float]:
        wall, cpu = time.monotonic(), time.process_time()
        since = (wall - self._wall, cpu - self._cpu)
        self._wall, self._cpu = wall, cpu
        return since
