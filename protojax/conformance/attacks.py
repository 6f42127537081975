"""Cases of attacks."""

import functools

import numpy as np

from protojax.conformance import networks
from protojax.conformance.cases import Case

SIGNATURES = {
    "projected_gradient": "(objective, x, radius, step, steps, norm) -> like x: the "
    "last iterate, from x, without bounds; steps of a sign ('linf') or a length ('l2')",
    "logits": "(fn, x) -> [K]",
    "saliency": "(score, x) -> like x: absolute gradients that sum to one",
    "top_k_slope": "(score, before, x, k) -> like x: the gradient of minus the "
    "saliency on the k largest entries of `before`",
    "top_k_attack": "(fn, twin, x, k, radius, step, steps) -> []: the largest of minus "
    "the saliency on the first k, of the class predicted, over iterates that keep it; "
    "signs of the twin's gradients, inside of [0, 1]",
}

_TO_DIGITS = "the digits that were written down"
_PGD = "Captum tests/robust/test_PGD.py"


def _climb(name, x, expected, source=_PGD, **knobs):
    target, sign = knobs.pop("target"), knobs.pop("sign")
    objective = functools.partial(_signed, target=target, sign=sign)
    given = {"objective": objective, "x": x, "step": 0.1, "norm": "linf"} | knobs
    why = "printed to two digits"
    return Case(name, "projected_gradient", given, expected, 0.01, why, source)


def _signed(ops, x, *, target, sign):
    return sign * networks.log_unit(ops, x, target)


_MAP = [
    *(0.132964, 0.112919, 0.033023, 0.001533, 0.001732, 0.034508, 0.114779, 0.131469),
    *(0.004187, 0.134354, 0.111026, 0.031573, 0.001350, 0.001950, 0.036030, 0.116603),
]
_SLOPE = [
    *(0.237120, -0.088115, -0.015313, -0.380765, 0.319516, 0.035153, 0.135510),
    *(-0.223327, -0.039697, 0.246888, -0.039488, 0.009973, -0.436103, 0.253184),
    *(0.049366, 0.181060),
]


def _golden(name, asks, expected, **given):
    source = "computed once in NumPy, from formulas for every derivative"
    given = {"x": networks.GOLDEN} | given
    return Case(name, asks, given, expected, 2e-6, _TO_DIGITS, source, "float64")


def _attacked(name, steps, expected):
    knobs = {"k": 4, "radius": 0.05, "step": 0.01, "steps": steps}
    networks_of = {"fn": networks.golden_relu, "twin": networks.golden_smooth}
    return _golden(name, "top_k_attack", expected, **networks_of, **knobs)


CASES = [
    _climb(
        *("B1", [2.0, -9, 9, 1, -3], [2, -9, 9, 1, -2.8]),
        target=4,
        sign=1,
        radius=0.25,
        steps=2,
    ),
    _climb(
        *("B2", [9.0, 10, -6, -1], [9, 10, -6, -1.2]),
        target=3,
        sign=-1,
        radius=0.2,
        steps=3,
    ),
    _climb(
        *("B3", [9.0, 10, -6, -1], [9, 10, -6.2, -1]),
        target=2,
        sign=-1,
        radius=0.2,
        steps=3,
        norm="l2",
    ),
    _climb(
        *("B5.1", [4.0, 2, -1, -2, 3, -4, 10, 5], [4, 2, -1, -2, 3, -3.75, 10, 5]),
        target=5,
        sign=1,
        radius=0.25,
        steps=3,
    ),
    _climb(
        *("B5.2", [2.0, -9, 9, 1, -3], [2, -8.9, 9, 1, -3]),
        "Captum tests/robust/test_FGSM.py",
        target=1,
        sign=1,
        radius=0.1,
        step=0.1,
        steps=1,
    ),
    _golden(
        *("fragility-9.5.1", "logits", [0.70160706, 0.18602592, -0.21831679]),
        fn=networks.golden_relu,
    ),
    _golden(
        *("fragility-9.5.2", "logits", [0.32251585, 0.18850303, -0.30035607]),
        fn=networks.golden_smooth,
    ),
    _golden("fragility-9.5.3", "saliency", _MAP, score=networks.golden_relu_score),
    _golden(
        *("fragility-9.5.4", "top_k_slope", _SLOPE),
        score=networks.golden_smooth_score,
        before=np.array(_MAP),
        k=4,
    ),
    _attacked("fragility-9.5.5", 1, -0.515390),
    _attacked("fragility-9.5.6", 2, -0.433999),
    _attacked("fragility-9.5.7", 20, -0.433999),
]
