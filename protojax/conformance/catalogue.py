"""All cases, and what they ask for."""

from protojax.conformance import (
    attacks,
    attributions,
    codes,
    curvature,
    metrics,
    prototypes,
    visualizations,
)
from protojax.conformance.cases import Case

_FAMILIES = (
    attributions,
    attacks,
    curvature,
    metrics,
    prototypes,
    codes,
    visualizations,
)

CASES: tuple[Case, ...] = tuple(case for family in _FAMILIES for case in family.CASES)
"""All cases."""

SIGNATURES: dict[str, str] = {
    asks: signature
    for family in _FAMILIES
    for asks, signature in family.SIGNATURES.items()
}
"""What is asked: the arguments by name, and the shape of the answer."""


def case(name: str) -> Case:
    """Find a case by its number.

    Args:
      name: say "A5".

    Returns:
      The case.

    Raises:
      ValueError: if there is none.

    >>> case("F7.2").expected
    0.5
    """
    for found in CASES:
        if found.name == name:
            return found
    raise ValueError(f"`name` is {name!r}: choose the name of one of `CASES`")
