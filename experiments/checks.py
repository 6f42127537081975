"""What scripts refuse before anything is loaded or trained."""

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def above_zero(config: Any, *names: str) -> None:
    """Refuse knobs, or entries of one, that are not above zero; None passes."""
    _hold(config, names, lambda value: value > 0, "above zero")


def not_below_zero(config: Any, *names: str) -> None:
    """The same, but zero passes."""
    _hold(config, names, lambda value: value >= 0, "zero or above")


def at_least(config: Any, least: int, *names: str) -> None:
    """The same for knobs of which there must be some."""
    _hold(config, names, lambda value: value >= least, f"at least {least}")


def among(config: Any, name: str, known: Sequence[str]) -> None:
    """Refuse names that nothing has."""
    for value in _entries(config, name):
        if value not in known:
            near = difflib.get_close_matches(value, known, n=1)
            meant = f". Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"`{name}` has {value!r}: choose from {', '.join(known)}{meant}"
            )


def _hold(
    config: Any, names: Sequence[str], holds: Callable[[Any], bool], what: str
) -> None:
    for name in names:
        for value in _entries(config, name):
            if value is not None and not (math.isfinite(value) and holds(value)):
                verb = "has" if isinstance(getattr(config, name), tuple) else "is"
                raise ValueError(f"`{name}` {verb} {value:g}: it must be {what}")


def _entries(config: Any, name: str) -> Iterable[Any]:
    value = getattr(config, name)
    if value == ():
        raise ValueError(f"`{name}` is empty: give at least one")
    return value if isinstance(value, tuple) else (value,)
