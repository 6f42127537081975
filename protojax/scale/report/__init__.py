"""From rows to numbers: read result folders, estimate with intervals, make tables.

Every number comes with its bootstrap interval, the number of examples behind it and
the number of rows left out of it. Drawing is done in `figures`, the page in `pages`.
"""

from protojax.scale.report.estimates import (
    Estimate,
    Row,
    estimate,
    proportion,
    sort,
    summary,
)
from protojax.scale.report.folders import arrays, provenance, read
from protojax.scale.report.tables import decimal, label, number, table

__all__ = [
    "Estimate",
    "Row",
    "arrays",
    "decimal",
    "estimate",
    "label",
    "number",
    "proportion",
    "provenance",
    "read",
    "sort",
    "summary",
    "table",
]
