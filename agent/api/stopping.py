"""How a signal ends a training: after the present update or turn, with a checkpoint."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from agent.learning.training import Training

STOP_S = 8.0
"""Seconds after which an interrupted training that has not come to its checkpoint ends without."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that interrupt a training."""


@contextmanager
def stoppable(training: Training) -> Iterator[None]:
    """Lets the SIGNALS end the training after the present update or turn, with a checkpoint.

    A second Ctrl-C raises KeyboardInterrupt at once, and so do STOP_S seconds in which no
    checkpoint was begun; the last one stands. A signal that the process ignores, as a worker of an
    engine does Ctrl-C, stays ignored. Only the main thread may set handlers: in another one a
    signal does what it did before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    late, clocks = threading.Event(), list[threading.Timer]()

    def stop(number: int, frame: FrameType | None) -> None:
        if late.is_set() and not training.saving:
            raise KeyboardInterrupt
        # `timeout` and a job scheduler signal parent and worker, which then hears of it twice.
        if number == signal.SIGINT and training.stopping:
            raise KeyboardInterrupt
        training.stopping = True
        if late.is_set() or not clocks:
            clocks.append(threading.Timer(STOP_S, insist, [signal.Signals(number)]))
            clocks[-1].daemon = True
            clocks[-1].start()

    def insist(number: signal.Signals) -> None:
        late.set()
        _thread.interrupt_main(number)

    before = {
        number: signal.signal(number, stop)
        for number in SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for clock in clocks:
            clock.cancel()
