"""The one loop that climbs, and the sets that it may not leave.

Every attack is `ascend` with an objective, an Optax step and a projection made by
`within`. What the objective means, and which step suits it, is not known here.
"""

from protojax.mechanisms.ascent.balls import free, within
from protojax.mechanisms.ascent.loop import (
    Ascent,
    Stalled,
    ascend,
    better,
    evaluate,
    raise_if_stalled,
)

__all__ = [
    "Ascent",
    "Stalled",
    "ascend",
    "better",
    "evaluate",
    "free",
    "raise_if_stalled",
    "within",
]
