"""From rows to numbers: read result folders, estimate with intervals, make tables.

Every number comes with its bootstrap interval, the number of examples behind it and
the number of rows left out of it; methods are compared on the same examples. Drawing is
done in `figures`, the page in `pages`.
"""

from protojax.scale.report.comparisons import Difference, compare, compared, holm
from protojax.scale.report.estimates import (
    Estimate,
    Row,
    estimate,
    interval,
    means,
    proportion,
    sort,
    summary,
)
from protojax.scale.report.folders import arrays, folders, provenance, read
from protojax.scale.report.references import bibliography
from protojax.scale.report.tables import decimal, label, number, table

__all__ = [
    "Difference",
    "Estimate",
    "Row",
    "arrays",
    "bibliography",
    "compare",
    "compared",
    "decimal",
    "estimate",
    "folders",
    "holm",
    "interval",
    "label",
    "means",
    "number",
    "proportion",
    "provenance",
    "read",
    "sort",
    "summary",
    "table",
]
