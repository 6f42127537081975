"""Cases of attributions: closed forms, and what other libraries' own tests hold to."""

import numpy as np

from protojax.conformance import networks
from protojax.conformance.cases import Case

SIGNATURES = {
    "gradient": "(score, x) -> like x, signed",
    "integrated_gradients": "(score, x, baseline, rule, steps) -> like x; rule: "
    "'left', 'right', 'midpoint', 'trapezoid' or 'gauss_legendre'",
    "quadrature": "(rule, steps) -> [2, steps]: nodes on [0, 1], and their weights",
    "deep_lift": "(score, x, baseline) -> like x: the rescale rule, times x - baseline",
    "multipliers": "(score, x, baseline) -> like x: the same, not multiplied",
    "lrp": "(score, x) -> like x: LRP-0",
    "conductance": "(score, x, layer, steps) -> like the layer; the baseline is zero",
    "class_activation": "(score, x, layer) -> [], or the layer's [h, w], signed",
    "guided_grad_cam": "(score, x, layer) -> like x, enlarged by the nearest",
    "excitation": "(fn, x, start) -> like x; start: probabilities of the outputs",
    "contrastive": "(fn, x, start) -> like x: the same, less that of -fn",
    "mask_penalty": "(m, area, smooth) -> []: what a mask of I-GOS costs",
}

_ROUNDING = "float32 rounding of numbers of this size"
_CLOSED = "closed form"
_FILES = "Captum tests/attr/"
_GRADIENTS = f"{_FILES}test_integrated_gradients_basic.py"
_LIFT = f"{_FILES}test_deeplift_basic.py"
_KINK = "a sum over a kink is off by a part of a step"


def _slope(name, score, x, expected, source=_CLOSED):
    return Case(
        name, "gradient", {"score": score, "x": x}, expected, 1e-6, _ROUNDING, source
    )


def _path(name, score, x, expected, source=_CLOSED, **knobs):
    given = {"score": score, "x": x, "baseline": [0.0] * len(x), "steps": 100}
    given = given | {"rule": "midpoint"} | knobs
    asks = "integrated_gradients"
    return Case(name, asks, given, expected, 5e-5, _ROUNDING, source)


def _kinked(name, score, x, expected, source=_CLOSED, **knobs):
    case = _path(name, score, x, expected, source, **knobs)
    return case._replace(atol=0.01, why=_KINK)


def _rule(rule, steps, nodes, weights):
    given, source = (
        {"rule": rule, "steps": steps},
        f"{_FILES}test_approximation_methods",
    )
    if rule == "trapezoid":
        source += " (its weights there sum to (n - 1) / n)"
    name = f"A4.{rule}.{steps}"
    return Case(name, "quadrature", given, [nodes, weights], 1e-6, _ROUNDING, source)


def _lift(name, score, x, expected, source="by hand", baseline=None):
    given = {"score": score, "x": x, "baseline": baseline or [0.0] * len(x)}
    return Case(name, "deep_lift", given, expected, 5e-6, _ROUNDING, source)


def _multiplied(*args):
    return _lift(*args)._replace(asks="multipliers")


def _layer(name, asks, score, x, layer, expected, file):
    given = {"score": score, "x": x, "layer": layer}
    return Case(
        name, asks, given, expected, 1e-2, f"{_ROUNDING}, printed", _FILES + file
    )


def _conducted(name, layer, expected):
    x, file = [0.0, 100.0, 0.0], "layer/test_layer_conductance.py"
    case = _layer(name, "conductance", networks.multilayer, x, layer, expected, file)
    given = {**case.given, "steps": 500}
    return case._replace(given=given, atol=0.1, why=_KINK)


def _excited(name, asks, expected):
    given = {"fn": networks.three_to_two, "x": [1.0, 2.0, 3.0], "start": [0.6, 0.4]}
    return Case(name, asks, given, expected, 1e-6, _ROUNDING, "by hand")


def _mask(name, m, area, smooth, expected):
    given = {"m": m, "area": area, "smooth": smooth}
    return Case(name, "mask_penalty", given, expected, 2e-6, _ROUNDING, "by hand")


_IMAGE = np.arange(16.0).reshape(4, 4, 1)
_HOLE = np.pad(np.zeros((2, 2)), 1, constant_values=1.0)
_BIASLESS = networks.no_bias, [0.3, -1.2, 0.7], [0.6, 3.0, 1.75], "gradient times input"
_W = np.arange(1.0, 5.0)

CASES = [
    _path(
        *("A1", networks.smooth, [1.0, 2.0, 3.0], [2.5, 3.0, np.sin(3) - np.sin(1)]),
        "PAIR saliency/core/integrated_gradients_test.py",
        baseline=[0.5, 1.0, 1.0],
    ),
    _kinked(
        *("A2", networks.nested, [3.0, 1.0], [1.5, -0.5], f"{_GRADIENTS}, BasicModel2"),
        steps=500,
    ),
    _kinked(
        *("A3", networks.nested_otherwise, [3.0, 1.0], [1.5, -0.5]),
        f"{_GRADIENTS}, BasicModel3: the same function otherwise written",
        steps=500,
    ),
    _rule("left", 2, [0, 0.5], [0.5, 0.5]),
    _rule("right", 2, [0.5, 1], [0.5, 0.5]),
    _rule("midpoint", 2, [0.25, 0.75], [0.5, 0.5]),
    _rule("trapezoid", 2, [0, 1], [0.5, 0.5]),
    _rule("trapezoid", 3, [0, 0.5, 1], [0.25, 0.5, 0.25]),
    _lift("A5", networks.two_units, [1.0, 2.0], [2, 1], f"{_LIFT}, ReLUDeepLiftModel"),
    _multiplied("A5.multipliers", networks.two_units, [1.0, 2.0], [2, 0.5]),
    _lift(
        *("A6.1", networks.pooled, [1.0] * 4, [0, 0, 0, -8]),
        f"{_LIFT}, LinearMaxPoolLinear",
        baseline=[1.0, 2.0, 3.0, 9.0],
    ),
    _lift(
        *("A6.2", networks.pooled, [1.0] * 4, [0, -7, 0, 0]),
        f"{_LIFT}, LinearMaxPoolLinear",
        baseline=[4.0, 8.0, 6.0, 7.0],
    ),
    _lift(
        *("A7", networks.two_inputs, [-10.0, 1, -5, 3, 3, 1], [0, 0, 0, 6, 9, 0]),
        f"{_LIFT}, ReLULinearModel; the values by hand",
    ),
    _lift(
        *("A8", networks.twice, [1.0, 2.0], [1.8, 1.8]),
        "by hand; what captum#1082 and shap#1479 are about",
    ),
    *(
        _multiplied(
            *(f"A9.{way}.{size:g}", score, [size] * 4, part * _W),
            "kundajelab/deeplift tests/layers/test_activation.py",
        )
        for way, size, score, part in (
            ("up", 1.0, networks.upward, 9 / 10),
            ("up", 2.0, networks.upward, 19 / 20),
            ("down", 1.0, networks.downward, -1 / 10),
            ("down", 2.0, networks.downward, -1 / 20),
        )
    ),
    _conducted("A10.linear0", "linear0", [0, 390, 0]),
    _conducted("A10.linear1", "linear1", [90, 100, 100, 100]),
    _conducted("A10.relu", "relu", [90, 100, 100, 100]),
    *(
        _layer(
            *(f"A11.{number}", "class_activation", score, x, layer, expected),
            "layer/test_grad_cam.py",
        )
        for number, (score, x, layer, expected) in enumerate(
            (
                (networks.multilayer, [0.0, 100.0, 0.0], "linear0", 400),
                (networks.two_branches, [0.0, 6.0, 0.0], "relu1", 21),
                (
                    *(networks.one_convolution, _IMAGE, "conv1"),
                    [[11.25, 13.5], [20.25, 22.5]],
                ),
                (networks.one_convolution, _IMAGE, "relu1", [[0, 4], [28, 32.5]]),
            ),
            1,
        )
    ),
    _layer(
        *("A12", "guided_grad_cam", networks.one_convolution, _IMAGE, "relu1"),
        np.array([[0, 0, 4, 4], [0, 0, 12, 8], [28, 84, 97.5, 65], [28, 56, 65, 32.5]])[
            ..., None
        ],
        "test_guided_grad_cam.py",
    ),
    _slope(
        *("A15", networks.bilinear, [1.0, 2.0], [10, 35]),
        "Captum tests/utils/test_jacobian.py",
    ),
    _path("fragility-9.2.1", networks.squares, [1.0, -2.0], [1.01, 4.04], rule="right"),
    _path("fragility-9.2.2", networks.squares, [1.0, -2.0], [0.99, 3.96], rule="left"),
    _path("fragility-9.2.3", networks.squares, [1.0, -2.0], [1, 4]),
    _path("fragility-9.2.4", networks.squares, [1.0, -2.0], [1, 4], rule="trapezoid"),
    _path(
        "fragility-9.2.5", networks.squares, [1.0, -2.0], [1, 4], rule="gauss_legendre"
    ),
    _path("fragility-9.2.6", networks.product, [2.0, 3.0], [3.03, 3.03], rule="right"),
    _path("fragility-9.2.7", networks.product, [2.0, 3.0], [3, 3]),
    _slope("fragility-9.2.8", networks.saturated, [2.0], [0]),
    _path("fragility-9.2.9", networks.saturated, [2.0], [0.98], rule="right"),
    _path(
        "fragility-9.2.10", networks.saturated, [2.0], [0.96], rule="right", steps=50
    ),
    _path("fragility-9.2.11", networks.saturated, [2.0], [1], steps=64),
    _lift("fragility-9.2.12", networks.saturated, [2.0], [1]),
    _path("fragility-9.2.13", *_BIASLESS, steps=2),
    _path("fragility-9.2.14", *_BIASLESS),
    _lift("fragility-9.2.15", *_BIASLESS),
    _lift("fragility-9.2.16", *_BIASLESS)._replace(
        asks="lrp", given={"score": _BIASLESS[0], "x": _BIASLESS[1]}
    ),
    _slope("fragility-9.3.1", networks.two_layers, [1.0, 2.0], [2, 7]),
    _lift("fragility-9.3.2", networks.two_layers, [1.0, 2.0], [15 / 14, 83 / 14]),
    _kinked(
        "fragility-9.3.3", networks.two_layers, [1.0, 2.0], [5 / 6, 37 / 6], steps=3000
    ),
    _path(
        "fragility-9.3.4", networks.two_layers, [1.0, 2.0], [0.84, 6.2], rule="right"
    ),
    _path(
        *("fragility-9.3.5", networks.two_layers, [1.0, 2.0], [1, 7]),
        rule="right",
        steps=10,
    ),
    _slope("fragility-9.3.6", networks.still_unit, [1.0, 0.5], [-1, -5]),
    _lift("fragility-9.3.7", networks.still_unit, [1.0, 0.5], [-4 / 7, -17 / 7]),
    _excited("decoders-F10.1", "excitation", [0.24, 0.4, 0.36]),
    _excited("decoders-F10.2", "contrastive", [-0.16, -0.2, 0.36]),
    _mask("decoders-F10.3", _HOLE, 1.0, 20.0, 0.25 + 20 * 2 / 3),
    _mask("decoders-F10.4", _HOLE, 1.0, 0.0, 0.25),
    _mask("decoders-F10.5", _HOLE, 0.0, 1.0, 2 / 3),
    _mask("decoders-F10.6", np.ones((4, 4)), 1.0, 20.0, 0.0),
]
