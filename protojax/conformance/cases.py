"""What a case is, and how a function is held to it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """One known answer.

    Attributes:
      name: its number, which it keeps.
      asks: what is asked, a key of `SIGNATURES`.
      given: the arguments by name: numbers, NumPy arrays, and functions of
        `(operations, x)`.
      expected: the answer, numbers in nested lists or an array.
      atol: how far from it, absolutely, an answer may be.
      why: why it may be that far.
      source: where the answer comes from.
      precision: "float64" where the tolerance asks for it.
    """

    name: str
    asks: str
    given: Mapping[str, Any]
    expected: Any
    atol: float
    why: str
    source: str
    precision: str = "float32"


class Verdict(NamedTuple):
    """What a function answered to a case.

    Attributes:
      case: the case.
      found: the answer.
      error: the largest absolute difference from what is expected.
      passed: whether that is within the case's tolerance.
    """

    case: Case
    found: np.ndarray
    error: float
    passed: bool


def check(case: Case, function: Callable[..., Any]) -> Verdict:
    """Hold a function to a case.

    Args:
      case: the case.
      function: called with `case.given` by name, of the signature
        `SIGNATURES[case.asks]`; whatever NumPy makes an array of may come back.

    Returns:
      The verdict; NaN agrees with NaN alone.

    Raises:
      ValueError: if the answer has another shape than what is expected.

    >>> from protojax import conformance
    >>> case = conformance.case("decoders-F9.5")
    >>> case.asks, dict(case.given), case.expected
    ('hoyer', {'codes': [3.0, 4.0, 0.0, 0.0]}, 0.6)
    >>> check(case, lambda codes: 0.6).passed
    True
    >>> round(check(case, lambda codes: 0.5).error, 6)
    0.1
    """
    found = np.asarray(function(**case.given), np.float64)
    expected = np.asarray(case.expected, np.float64)
    if found.shape != expected.shape:
        raise ValueError(
            f"the answer to {case.name} ({case.asks}) has shape {found.shape}: "
            f"return {expected.shape}"
        )
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore"):  # infinity less itself, which is the same
        off = np.where(same, 0, np.abs(found - expected))
    error = float(np.max(off, initial=0))
    return Verdict(case, found, error, error <= case.atol)


def check_all(
    cases: Iterable[Case], functions: Mapping[str, Callable[..., Any]]
) -> list[Verdict]:
    """Hold a library's functions to all cases that ask for them.

    Args:
      cases: say `conformance.CASES`.
      functions: by what they answer to, keys of `SIGNATURES`; other cases are left out.

    Returns:
      One verdict for each case that is asked, in order.

    Raises:
      ValueError: for a function under a name that nothing asks for.

    >>> from protojax import conformance
    >>> found = check_all(conformance.CASES, {"hoyer": lambda codes: 0.6})
    >>> [(verdict.case.name, verdict.passed) for verdict in found][0]
    ('decoders-F9.5', True)
    """
    cases = list(cases)
    unknown = functions.keys() - {case.asks for case in cases}
    if unknown:
        raise ValueError(
            f"nothing asks for {sorted(unknown)}: choose keys of `SIGNATURES`"
        )
    return [check(c, functions[c.asks]) for c in cases if c.asks in functions]


def table(verdicts: Iterable[Verdict]) -> str:
    """Lay verdicts out as a table of Markdown.

    Args:
      verdicts: as `check_all` gives them.

    Returns:
      A line for each: case, what is asked, the largest difference, the tolerance.

    >>> from protojax import conformance
    >>> found = check(conformance.case("decoders-F9.5"), lambda codes: 0.5)
    >>> print(table([found]))
    | case | asks | off by | may be | |
    |---|---|--:|--:|---|
    | decoders-F9.5 | hoyer | 0.1 | 1e-06 | **differs** |
    """
    lines = ["| case | asks | off by | may be | |", "|---|---|--:|--:|---|"]
    lines += [
        f"| {case.name} | {case.asks} | {error:.2g} | {case.atol:.2g} | "
        f"{'passes' if passed else '**differs**'} |"
        for case, _, error, passed in verdicts
    ]
    return "\n".join(lines)
