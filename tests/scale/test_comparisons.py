import itertools

import numpy as np
import pytest
import scipy.stats

from protojax.scale import report


def paired(a, b, **more):
    rows = [{"id": i, "attack": "a", "x": float(x)} for i, x in enumerate(a)]
    rows += [{"id": i, "attack": "b", "x": float(x)} for i, x in enumerate(b)]
    return [{**row, **more} for row in rows]


def test_p_is_that_of_all_signs_of_the_ranks():
    """The exact distribution of the signed-rank sum, by brute force."""
    a, b = np.random.default_rng(0).normal(size=(2, 9)) + [[0.6], [0.0]]
    ranks = scipy.stats.rankdata(np.abs(a - b))
    sums = [np.dot(s, ranks) for s in itertools.product([-1, 1], repeat=9)]
    found = np.dot(np.sign(a - b), ranks)
    share = np.mean(np.abs(sums) >= abs(found) - 1e-9)
    (compared,) = report.compare(paired(a, b), "x", methods="attack")
    assert compared.p == pytest.approx(share)
    assert compared.mean == pytest.approx(np.mean(a - b))
    assert compared.low < compared.mean < compared.high and compared.n == 9


def test_pairing_sees_what_two_intervals_do_not():
    images = np.linspace(0, 10, 30)
    rows = paired(images + 0.1 + 0.01 * np.sin(images), images)
    a, b = (
        report.estimate([r for r in rows if r["attack"] == k], "x") for k in ("a", "b")
    )
    assert a.low < b.high  # the intervals overlap
    (found,) = report.compare(rows, "x", methods="attack")
    assert found.p < 1e-8 and found.low > 0.09


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [2, 5, 80])
def test_under_the_null_p_is_spread_and_equal_methods_have_one(count):
    draw = np.random.default_rng(1)
    ps = []
    for _ in range(200):
        rows = paired(*draw.normal(size=(2, count)))
        ps.append(report.compare(rows, "x", methods="attack")[0].p)
    assert np.mean(np.asarray(ps) <= 0.05) <= 0.09  # binomial, three deviations
    same = draw.normal(size=count)
    (found,) = report.compare(paired(same, same), "x", methods="attack")
    assert (found.p, found.mean, found.low, found.high) == (1, 0, 0, 0)


def test_ties_and_truths_are_compared():
    """Of 20 discordant pairs all on one side: the sign test gives 2 / 2**20."""
    rows = paired([True] * 20 + [False] * 20, [False] * 40)
    (found,) = report.compare(rows, "x", methods="attack")
    assert found.mean == 0.5 and found.p < 1e-3


def test_only_examples_of_both_count_and_seeds_are_averaged():
    rows = paired([1.0, 2.0, 3.0], [0.0, 0.0])
    rows += [{"id": 0, "attack": "a", "x": 3.0}, {"id": 1, "attack": "b", "x": None}]
    rows += [{"id": 1, "attack": "a", "x": 9.0, "stalled": True}]
    (found,) = report.compare(rows, "x", methods="attack")
    assert (found.mean, found.n, found.left_out) == (2.0, 2, 2)
    alone = report.compare(rows[:3] + rows[-2:-1], "x", methods="attack")
    assert alone[0].n == 0 and alone[0].p is None and alone[0].mean is None


def test_holm_is_what_it_is_by_hand():
    assert report.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx(
        [0.03, 0.06, 0.06, 0.02]
    )
    assert report.holm([0.9, 0.8]) == [1.0, 1.0]
    assert report.holm([]) == []


def test_one_method_is_held_against_all_others_or_all_against_all():
    rows = paired([1, 2, 3], [2, 3, 5]) + [
        {"id": i, "attack": "c", "x": float(i)} for i in range(3)
    ]
    pairs = lambda **knobs: [
        (d.first, d.second)
        for d in report.compare(rows, "x", methods="attack", **knobs)
    ]
    assert pairs() == [("a", "b"), ("a", "c"), ("b", "c")]
    assert pairs(against="b") == [("a", "b"), ("c", "b")]
    with pytest.raises(
        ValueError, match="`against` is 'd', and no row.*choose from 'a'"
    ):
        pairs(against="d")
    with pytest.raises(ValueError, match="no row has `y`: choose from"):
        report.compare(rows, "y", methods="attack")


def test_the_tests_of_a_table_are_corrected_together():
    draw = np.random.default_rng(3)
    rows = []
    for radius in (0.1, 0.2):
        a, b = draw.normal(size=(2, 12)) + [[1.0], [0.0]]
        rows += paired(a, b, radius=radius)
    text = report.compared(rows, methods="attack", columns_by="radius", value="x")
    head, _, line = text.splitlines()
    assert head == "| x, paired differences | radius 0.1 | radius 0.2 |"
    each = [
        report.compare(
            [r for r in rows if r["radius"] == radius], "x", methods="attack"
        )
        for radius in (0.1, 0.2)
    ]
    for p in report.holm([found.p for (found,) in each]):
        assert f"p={p:.2g} n=12" in line
    assert line.startswith("| a - b | ")
