"""All tables in one."""

from collections.abc import Iterator

from benchmarks import (
    curvature,
    fragility,
    generation,
    lowering,
    prototypes,
    reconstruction,
    sweep,
    timing,
)


def rows(quick: bool) -> Iterator[timing.Row]:
    """Yield the rows of every benchmark."""
    yield from lowering.rows(quick)
    yield from fragility.rows(quick)
    yield from curvature.rows(quick)
    yield from reconstruction.rows(quick)
    yield from prototypes.rows(quick)
    yield from generation.rows(quick)
    yield from sweep.rows(quick)


if __name__ == "__main__":
    timing.main(rows, __doc__)
