"""Cases of metrics: of two maps, of a map against a mask, of prototypes."""

import numpy as np

from protojax.conformance.cases import Case

SIGNATURES = {
    "rank_correlation": "(a, b) -> []: Spearman's, equal entries sharing their ranks",
    "kendall": "(a, b) -> []: tau-b",
    "top_k_intersection": "(a, b, k) -> []: the share of the k largest in common",
    "center_of_mass": "(a) -> [2]: row and column, from zero",
    "center_shift": "(a, b) -> []",
    "total_variation": "(x) -> []: the sum of absolute differences of neighbors",
    "explanation_size": "(scores, threshold) -> []: how many are above that share of "
    "the largest",
    "mask_overlap": "(a, b) -> []: intersection over union",
    "part_rates": "(hits, visible) -> [parts]: hits per image that shows the part",
    "location_change": "(before, after, share) -> []: percent (PLC)",
    "activation_change": "(before, after) -> []: percent (PAC)",
    "rank_change": "(before, after, prototype, owners) -> []: of other classes, how "
    "many more are above it (PRC)",
    "accuracy_change": "(before, after) -> []: points of a hundred (AC)",
    "outside_inside_ratio": "(a, inside) -> []: of means of what is not zero (OIRR)",
    "inside_outside_difference": "(a, inside) -> []: of a map over its largest (IOR)",
}

_ROUNDING = "float32 rounding"
_TOP = np.arange(8)[:, None] * np.ones((8, 8))
_QUANPROTO = "quanproto tests/modules/quanproto/metrics"
_LIKE = "Quantus tests/functions/test_similarity_func.py"
_INSIDE = np.arange(4)[:, None] * np.ones((4, 4)) < 2


def _case(name, asks, expected, source, atol=1e-6, **given):
    return Case(name, asks, given, expected, atol, _ROUNDING, source)


def _point(row, column):
    a = np.zeros((5, 7))
    a[row, column] = 4.0
    return a


_RANKED = {"before": [5.0, 6, 4, 3, 7], "prototype": 0, "owners": [0, 0, 1, 1, 2]}
_HITS = [[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 1, 0]]
_SEEN = [[1, 0, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0]]

CASES = [
    _case(
        *("fragility-9.6.1", "rank_correlation", 0.8207826817, "SciPy, spearmanr"),
        a=[1.0, 2, 3, 4, 5],
        b=[5.0, 6, 7, 8, 7],
    ),
    _case(
        *("fragility-9.6.2", "center_of_mass", [3, 2], "closed form"), a=_point(3, 2)
    ),
    _case(
        *("fragility-9.6.3", "center_of_mass", [2, 3], "closed form"),
        a=np.ones((5, 7)),
    ),
    _case(
        *("fragility-9.6.4", "center_shift", 10**0.5, "closed form"),
        a=_point(3, 2),
        b=_point(4, 5),
    ),
    _case(
        *("fragility-9.6.5", "top_k_intersection", 0, "closed form"),
        a=np.arange(12.0).reshape(3, 4),
        b=-np.arange(12.0).reshape(3, 4),
        k=6,
    ),
    _case(*("F7.1", "rank_correlation", 0, _LIKE), a=[0.0, 1, 0, 1], b=[1.0, 2, 1, 0]),
    _case(*("F7.2", "rank_correlation", 0.5, _LIKE), a=[-1.0, 1, 1], b=[0.0, 0, 2]),
    _case(
        *("F7.3", "rank_correlation", -1, "closed form"),
        a=[1.0, 4, 2, 8],
        b=[8.0, 2, 4, 1],
    ),
    _case(*("F7.4", "kendall", -1, "closed form"), a=[1.0, 4, 2, 8], b=[8.0, 2, 4, 1]),
    _case(
        *("F7.5", "rank_correlation", 0.9486832980505138, "SciPy, spearmanr"),
        a=[1.0, 2, 2, 3],
        b=[1.0, 3, 2, 4],
    ),
    _case("F6.1", "total_variation", 0, "closed form", x=np.full((5, 6, 3), 0.7)),
    _case(
        *("F6.2", "total_variation", 4 * 6 + 5 * 5, "the edges of a board, counted"),
        x=(np.indices((5, 6)).sum(0) % 2.0)[..., None],
    ),
    *(
        _case(
            *(f"E4.{number}", "explanation_size", size, f"{_QUANPROTO}: compactness"),
            scores=scores,
            threshold=0.1,
        )
        for number, scores, size in (
            (1, [2, 0.2], 1),
            (2, [0.05, 0.04], 2),
            (3, [1.1, 10], 2),
        )
    ),
    _case(
        *("E4.4", "mask_overlap", 1 / 3, f"{_QUANPROTO}: complexity"),
        a=_TOP < 4,
        b=(_TOP >= 2) & (_TOP < 6),
    ),
    _case(
        *("E4.5", "mask_overlap", 0, f"{_QUANPROTO}: contrastivity"),
        a=np.eye(4) * [1, 1, 0, 0] > 0,
        b=np.eye(4) * [0, 0, 1, 1] > 0,
    ),
    _case(
        *("E4.6", "mask_overlap", 0.5, f"{_QUANPROTO}: contrastivity"),
        a=np.array([[1, 0, 0, 1], [0] * 4, [0, 1, 0, 0], [0, 1, 1, 1]]) > 0,
        b=np.array([[0, 0, 0, 1], [0] * 4, [1, 0, 0, 0], [1, 1, 1, 1]]) > 0,
    ),
    _case(
        *("protopnet-8.1", "part_rates", [0.75, 1, 0], "counted"),
        hits=_HITS,
        visible=_SEEN,
    ),
    _case(
        *("protopnet-8.2", "location_change", 200 / 3, "by hand", 1e-4),
        before=_TOP < 4,
        after=(_TOP >= 2) & (_TOP < 6),
        share=0.5,
    ),
    _case(
        *("protopnet-8.3", "activation_change", 75, "by hand"), before=4.0, after=1.0
    ),
    _case(
        *("protopnet-8.4", "rank_change", 1, "counted: two above, one below"),
        **_RANKED,
        after=[2.0, 6, 4, 3, 1],
    ),
    _case(
        *("protopnet-8.5", "rank_change", 0, "nothing changed"),
        **_RANKED,
        after=_RANKED["before"],
    ),
    _case(
        *("protopnet-8.6", "accuracy_change", 50, "counted"),
        before=[1, 1, 0, 1],
        after=[1, 0, 0, 0],
    ),
    _case(
        *("protopnet-8.7", "outside_inside_ratio", 0.25, "by hand"),
        a=np.where(_INSIDE, 0.8, 0.2),
        inside=_INSIDE,
    ),
    _case(
        *("protopnet-8.8", "inside_outside_difference", 0.75, "by hand"),
        a=np.where(_INSIDE, 0.8, 0.2),
        inside=_INSIDE,
    ),
    _case(
        *("protopnet-8.9", "inside_outside_difference", 1, "by hand"),
        a=_INSIDE * 1.0,
        inside=_INSIDE,
    ),
    _case(
        *("protopnet-8.10", "outside_inside_ratio", np.inf, "by hand"),
        a=1.0 - _INSIDE,
        inside=_INSIDE,
    ),
]
