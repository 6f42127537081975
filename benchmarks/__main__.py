"""All tables in one."""

from benchmarks import fragility, lowering, timing


def rows(quick: bool) -> list[timing.Row]:
    """Return the rows of every benchmark."""
    return lowering.rows(quick) + fragility.rows(quick)


if __name__ == "__main__":
    timing.main(rows, __doc__)
