"""What whoever waits sees: rate and time left, and a way to leave that loses nothing.

Signals and the terminal are global; they are touched inside these two contexts only,
and put back as they were.
"""

import contextlib
import importlib.util
import logging
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

_log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LINE_EVERY = 10.0  # seconds between lines of progress in a log


@contextlib.contextmanager
def finishing(folder: pathlib.Path) -> Iterator[Callable[[], None]]:
    """Turn Ctrl-C and SIGTERM into a wish to leave, asked for where it is safe.

    The second signal acts at once, as if this were not here. Outside the main thread,
    where signals never arrive, nothing changes.

    Args:
      folder: where the results are, for the message.

    Yields:
      A function that raises `KeyboardInterrupt` if a signal came.
    """
    came: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)
        restore()
        # Not the logging or the terminal's buffer: either may be held just now.
        os.write(2, b"\nfinishing the part in flight; again to leave at once\n")

    def stop() -> None:
        if came:
            name = signal.Signals(came[0]).name
            raise KeyboardInterrupt(
                f"left after {name}: what is finished lies in {folder}; "
                "run the same command again to go on from there"
            )

    ours = threading.current_thread() is threading.main_thread()
    before = {s: signal.signal(s, handle) for s in _SIGNALS} if ours else {}

    def restore() -> None:
        for number, handler in before.items():
            # None is one that Python did not set, such as JAX's of a cluster.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    try:
        yield stop
    finally:
        restore()


@contextlib.contextmanager
def bar(total: int, done: int, *, unit: str = "row") -> Iterator[Callable[[int], None]]:
    """Show how far a loop is, its rate and the time left.

    A bar where tqdm is installed, else a line in the log every ten seconds.

    Args:
      total: how much there is to do.
      done: how much of it was done before.
      unit: of what.

    Yields:
      A function that says how much more is done.
    """
    if importlib.util.find_spec("tqdm") is None:
        yield _lines(total, done, unit)
        return
    import tqdm

    every = 0.2 if sys.stderr.isatty() else _LINE_EVERY
    with tqdm.tqdm(total=total, initial=done, unit=unit, mininterval=every) as shown:

        def step(count: int) -> None:
            shown.update(count)

        yield step


def _lines(total: int, done: int, unit: str) -> Callable[[int], None]:
    begin = said = time.monotonic()
    before = done

    def step(count: int) -> None:
        nonlocal done, said
        done += count
        now = time.monotonic()
        if now - said < _LINE_EVERY and done < total:
            return
        said = now
        rate = (done - before) / max(now - begin, 1e-9)
        left = (total - done) / rate
        _log.info("%d of %d, %.3g %ss/s, %.0f s left", done, total, rate, unit, left)

    return step
