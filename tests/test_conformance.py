"""Our functions against all known answers, and the kit that holds them to these."""

import contextlib
import re

import jax
import numpy as np
import pytest

from protojax import conformance
from tests.ours import OURS


@pytest.mark.parametrize("case", conformance.CASES, ids=lambda case: case.name)
def test_protojax_gives_the_known_answer(case):
    wide = case.precision == "float64"
    with jax.enable_x64(True) if wide else contextlib.nullcontext():
        verdict = conformance.check(case, OURS[case.asks])
    assert verdict.passed, (verdict.error, verdict.found)


def test_every_case_has_a_number_a_question_and_a_source():
    names = [case.name for case in conformance.CASES]
    assert len({*names}) == len(names)
    assert {case.asks for case in conformance.CASES} == {*conformance.SIGNATURES}
    assert {*OURS} == {*conformance.SIGNATURES}
    for case in conformance.CASES:
        without_shapes = re.sub(r"\[.*?\]", "", conformance.SIGNATURES[case.asks])
        (arguments,) = re.match(r"\((.*?)\)", without_shapes).groups()
        assert {name.strip() for name in arguments.split(",")} == {*case.given}, (
            case.name
        )
        assert case.why and case.source and case.atol >= 0
        assert case.precision in ("float32", "float64")


def says(answer):
    return lambda **_: answer


def test_an_answer_is_held_to_its_tolerance_and_its_shape():
    case = conformance.case("E4.4")
    near, far = case.expected + 0.9 * case.atol, case.expected + 1.1 * case.atol
    assert conformance.check(case, says(near)).passed
    verdict = conformance.check(case, says(far))
    assert not verdict.passed and verdict.error == pytest.approx(1.1 * case.atol)
    assert not conformance.check(case, says(np.nan)).passed
    with pytest.raises(ValueError, match=r"E4.4 \(mask_overlap\) has shape \(2,\)"):
        conformance.check(case, says([1, 2]))


def test_infinity_and_nan_are_answers_too():
    infinite, undefined = map(conformance.case, ("protopnet-8.10", "F1.6"))
    assert conformance.check(infinite, says(np.inf)).passed
    assert not conformance.check(infinite, says(-np.inf)).passed
    assert not conformance.check(infinite, says(1e30)).passed
    assert conformance.check(undefined, says(np.nan)).passed
    assert not conformance.check(undefined, says(0.0)).passed


def test_a_library_is_held_to_what_it_has():
    verdicts = conformance.check_all(conformance.CASES, {"kendall": says(1.0)})
    assert [verdict.case.asks for verdict in verdicts] == ["kendall"]
    assert conformance.table(verdicts).endswith(
        "| F7.4 | kendall | 2 | 1e-06 | **differs** |"
    )
    with pytest.raises(ValueError, match=r"nothing asks for \['tau'\]"):
        conformance.check_all(conformance.CASES, {"tau": max})
    with pytest.raises(ValueError, match="`name` is 'Z9'"):
        conformance.case("Z9")
