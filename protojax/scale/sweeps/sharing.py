"""Which part is whose, where several processes fill one folder.

There is no schedule and no message: what is whose follows from numbers that everybody
knows, and what is done from the files that are there. So nobody waits for a process
that is gone longer than it takes to be sure of it.
"""

import time
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

Item = TypeVar("Item")

_LEAST = 60.0  # seconds without news before a process is taken for gone
_UNKNOWN = 600.0  # the same where nothing is known of how long a part takes
_PAUSE = 1.0  # seconds between two looks


def is_own(position: int, chunk: int, *, index: int, count: int) -> bool:
    """Whether a part is one that this process does.

    Chunks go round the processes, and each setting begins with another one, so that
    few chunks of many settings are shared evenly, too.

    Args:
      position: of the setting in the sweep.
      chunk: number of the chunk.
      index: of the process.
      count: of all processes.

    Returns:
      True for one of the processes.

    >>> [[is_own(p, c, index=0, count=2) for c in range(3)] for p in range(2)]
    [[True, False, True], [False, True, False]]
    """
    return (position + chunk) % count == index


def patience(longest: float) -> float:
    """How long without news before what others have not done is taken over.

    Args:
      longest: seconds that the slowest of this process's own parts took, compilation
        included; zero where it had none to do.

    Returns:
      Seconds: others may be half as fast.
    """
    return max(_LEAST, 2 * longest) if longest else _UNKNOWN


def awaited(
    parts: Collection[Item],
    there: Callable[[], Collection[Item]],
    patience: float,
    stop: Callable[[], None],
) -> list[Item]:
    """Wait for parts that others do, as long as some of them come.

    Args:
      parts: what is waited for.
      there: says which parts there are.
      patience: seconds without a new one that end the waiting.
      stop: asked at every look; raises where this process is to leave.

    Returns:
      The parts that are still missing; mostly none.

    >>> awaited(["a", "b"], lambda: ["a"], 0.01, lambda: None)
    ['b']
    """
    # A clock that only goes forward, whatever becomes of the time of day.
    news, left = time.monotonic(), list(parts)
    while left:
        found = set(there())
        still = [part for part in left if part not in found]
        if len(still) < len(left):
            news, left = time.monotonic(), still
        elif time.monotonic() - news > patience:
            break
        if left:
            stop()
            time.sleep(min(_PAUSE, patience / 2))
    return left


def turned(items: Sequence[Item], *, index: int, count: int) -> list[Item]:
    """The same items, begun at another place by every process.

    Args:
      items: what each of them may do.
      index: of the process.
      count: of all processes.

    Returns:
      All items.

    >>> turned("abcd", index=1, count=2)
    ['c', 'd', 'a', 'b']
    """
    first = index * len(items) // count
    return [*items[first:], *items[:first]]
