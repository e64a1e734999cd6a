"""SIGTERM in a child: it ends at once, but where work would be lost, as soon as that is saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event


class Stopped(BaseException):
    """The child was asked to stop and has saved what it had. No error: nothing may catch it as one."""


@contextmanager
def deferred() -> Iterator[Event]:
    """Inside, a request to stop only sets this event, for the block to look at. Main thread only."""
    asked = Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals are the main thread's: nobody can ask
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
