"""Known answers, as data, by which any library's functions can be checked.

A `Case` has a number, says what it asks for, what is given, what is to come out, how
far an answer may be from that and why, and where the answer comes from: a closed form,
a count by hand, the authors' code of a paper, or another library's own tests.
`SIGNATURES` says of everything that is asked what arguments come, and what is to be
returned.

Functions that are explained or attacked are `(operations, x)`, and written over
`Operations`, of which `JAX` is one; with those of another framework the same cases run
there. Nothing here knows protojax's own functions: `tests/test_conformance.py` holds
them to all cases.

>>> from protojax import conformance
>>> case = conformance.case("A5")
>>> case.asks, case.given["x"], case.expected
('deep_lift', [1.0, 2.0], [2, 1])
>>> conformance.check(case, lambda score, x, baseline: [2.0, 0.9]).passed
False
"""

from protojax.conformance.cases import Case, Verdict, check, check_all, table
from protojax.conformance.catalogue import CASES, SIGNATURES, case
from protojax.conformance.operations import JAX, Operations

__all__ = [
    "CASES",
    "JAX",
    "SIGNATURES",
    "Case",
    "Operations",
    "Verdict",
    "case",
    "check",
    "check_all",
    "table",
]
