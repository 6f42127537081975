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
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

_log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FINISHING = (
    b"\nfinishing the part in flight, or its compilation; again to leave at once\n"
)
_GRACE = 2.0  # seconds that Python has to act on a second signal itself
_LEAST, _MOST = 10.0, 600.0  # seconds between lines of progress in a log


@contextlib.contextmanager
def finishing(folder: pathlib.Path) -> Iterator[Callable[[], None]]:
    """Turn Ctrl-C and SIGTERM into a wish to leave, asked for where it is safe.

    The second signal acts at once, as if this were not here. Outside the main thread,
    where signals never arrive, nothing changes.

    Python's handlers wait for a call to return, and a program is compiled in one that
    may take minutes. So a thread listens, too: it says at once that the signal came,
    and ends the process at the second one where Python cannot; an interpreter that
    somebody works in is never ended.

    Args:
      folder: where the results are, for the message.

    Yields:
      A function that raises if a signal came.

    Raises:
      KeyboardInterrupt: by that function; says where the results are.
    """
    came: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)
        restore()

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
        with _listening() if ours else contextlib.nullcontext():
            yield stop
    finally:
        restore()


@contextlib.contextmanager
def _listening() -> Iterator[None]:
    """Have a thread told of signals by the system, whatever Python is doing."""
    heard, told = socket.socketpair()
    told.setblocking(False)
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    left = threading.Event()
    thread = threading.Thread(target=_listen, args=(heard, left), daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        told.close()  # which ends the thread
        thread.join()
        heard.close()


def _listen(heard: socket.socket, left: threading.Event) -> None:
    count = 0
    while numbers := heard.recv(1):
        if numbers[0] not in _SIGNALS:
            continue
        count += 1
        if count == 1:
            # Not the logging or the terminal's buffer: either may be held just now.
            os.write(2, _FINISHING)
        elif not (_is_interactive() or left.wait(_GRACE)):
            os._exit(128 + numbers[0])  # what a shell gives for it


@contextlib.contextmanager
def bar(total: int, done: int, *, unit: str = "row") -> Iterator[Callable[[int], None]]:
    """Show how far a loop is, its rate and the time left.

    A bar where somebody looks and tqdm is installed. Else lines in the log: the first
    after ten seconds, then after a tenth of the time that has gone by, ten minutes at
    most. They tell the time left from what came after the first step, in which a
    program is compiled.

    Args:
      total: how much there is to do.
      done: how much of it was done before.
      unit: of what.

    Yields:
      A function that says how much more is done.
    """
    looked_at = sys.stderr.isatty() or _is_interactive()
    if not looked_at or importlib.util.find_spec("tqdm") is None:
        yield _lines(total, done, unit)
        return
    import tqdm

    with tqdm.tqdm(total=total, initial=done, unit=unit, mininterval=0.2) as shown:

        def step(count: int) -> None:
            shown.update(count)

        yield step


def _lines(total: int, done: int, unit: str) -> Callable[[int], None]:
    begin = said = time.monotonic()
    since: tuple[float, int] | None = None  # when, and how much was done

    def step(count: int) -> None:
        nonlocal done, said, since
        now = time.monotonic()
        # What came first was compiled, too, and says nothing of the rest.
        timed = since or ((begin, done) if done + count >= total else None)
        done += count
        since = since or (now, done)
        wait = min(max(_LEAST, (now - begin) / 10), _MOST)
        if now - said < wait and done < total:
            return
        said = now
        if timed is None:
            _log.info("%d of %d; the time left is not known yet", done, total)
            return
        rate = (done - timed[1]) / max(now - timed[0], 1e-9)
        left = duration((total - done) / rate)
        _log.info("%d of %d, %.3g %ss/s, %s left", done, total, rate, unit, left)

    return step


def duration(seconds: float) -> str:
    """A time for a reader.

    Args:
      seconds: how many.

    Returns:
      It in seconds, minutes or hours.

    >>> duration(5.2), duration(600.0), duration(9000.0)
    ('5 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.1f} s" if 0 < seconds < 1 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _is_interactive() -> bool:
    """Whether somebody types into this interpreter, a notebook's included."""
    return hasattr(sys, "ps1")
