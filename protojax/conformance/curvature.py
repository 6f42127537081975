"""Cases of second derivatives, of inputs, maps and parameters, and of influences."""

import functools

import numpy as np

from protojax.conformance import networks
from protojax.conformance.cases import Case

SIGNATURES = {
    "input_hessian": "(score, x) -> [n, n]",
    "input_eigenvalues": "(score, x) -> [n]: of the input Hessian, from the largest "
    "magnitude down",
    "eigenvector_angle": "(score, x) -> []: the absolute cosine of the gradient and "
    "the leading eigenvector of the input Hessian",
    "cross_entropy_eigenvalues": "(fn, x) -> [K - 1]: of the input Hessian of the "
    "cross-entropy, whatever the class, of a piecewise linear network",
    "map_jacobian": "(score, x) -> [n, n]: of absolute gradients that sum to one",
    "inverse_product": "(score, x, b) -> like x: the inverse input Hessian times b",
    "projected_inverse": "(matrix, b, k) -> like b: the inverse of a symmetric matrix "
    "on its k leading eigenvectors, times b",
    "parameter_hessian": "(loss, params, inputs, targets) -> [n, n]: of the mean over "
    "examples of `loss(operations, params, input, target)`, parameters in their order",
    "influences": "(loss, params, inputs, targets, x, y, damping) -> [N]: the slope of "
    "the loss at (x, y) times the inverse damped Hessian of the mean loss times each "
    "example's slope",
    "influence_slope": "(loss, params, inputs, targets, index, x, y) -> like x: the "
    "gradient of the influence of one example on (x, y) with respect to x",
}

_CLOSED = "closed form"
_DOUBLE = "float64"
_DIGITS = "the digits that were written down"
_NUMPY = "computed once in NumPy, from formulas for every derivative"


def _exact(name, asks, expected, source=_CLOSED, atol=1e-9, why=_DOUBLE, **given):
    return Case(name, asks, given, expected, atol, why, source, "float64")


def _bent(name, score, x, expected):
    return _exact(name, "input_hessian", expected, score=score, x=x)


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _rosenbrock(ops, x, alpha):
    del ops
    return (1 - x[..., 0]) ** 2 + alpha * (x[..., 1] - x[..., 0] ** 2) ** 2


def _banana(name, alpha, x, y):
    score = functools.partial(_rosenbrock, alpha=alpha)
    corner = 2 - 4 * alpha * (y - 3 * x**2)
    expected = [[corner, -4 * alpha * x], [-4 * alpha * x, 2 * alpha]]
    return _bent(name, score, [x, y], expected)


def _sines(ops, x):
    return ops.total(ops.sin(x), 1)


_NEURON, _AT = np.array([1, -2, 0.5]), np.array([0.3, 0.1, -0.4])


def _soft_neuron(ops, x):
    return ops.softplus(x @ ops.array(_NEURON), 1.0)


def _sigmoid_neuron(ops, x):
    return 1 / (1 + ops.exp(-(x @ ops.array(_NEURON))))


def _sigmoid_bend():
    s = _sigmoid(_NEURON @ _AT)
    return s * (1 - s) * (1 - 2 * s) * np.outer(_NEURON, _NEURON)


_UNITS = np.array([[3, 0], [0, 2], [0, 0], [0, 0]])


def _two_soft_units(ops, x):
    return ops.softplus(x @ ops.array(_UNITS), 1.0) @ ops.array([1, -1.5])


_LAYER = np.sin(np.outer([1, 2, 3], [1, 2, 3, 4]))


def _log_cosh(ops, x):
    """As the softplus of twice its argument, less that and log 2."""
    z = x @ ops.array(_LAYER)
    return ops.total(ops.softplus(z, 2.0) * 2 - z, 1)


def _log_cosh_bend(x):
    return _LAYER @ np.diag(np.cosh(x @ _LAYER) ** -2) @ _LAYER.T


def _soft_layer(ops, x):
    return ops.total(ops.softplus(x @ ops.array(_LAYER), 1.0), 1)


def _map_jacobian(x):
    """Of the softplus layer: shares `a` of `|g|` turn by `(I - a 1') S H / sum |g|`."""
    s = _sigmoid(x @ _LAYER)
    gradient, hessian = _LAYER @ s, _LAYER @ np.diag(s * (1 - s)) @ _LAYER.T
    total = np.sum(np.abs(gradient))
    spread = np.eye(3) - np.outer(np.abs(gradient) / total, np.ones(3))
    return spread @ np.diag(np.sign(gradient)) @ hessian / total


def _cross_entropy_eigenvalues(x):
    """Of the golden network: `J' (diag p - p p') J`, by NumPy's eigenvalues."""
    unit, pixel, out = np.arange(8.0), np.arange(16.0), np.arange(3.0)
    first = np.sin(0.7 * (unit[:, None] + 1) * (pixel + 1))
    second = np.cos(0.5 * (out[:, None] + 1) * (unit + 1))
    z = first @ x + 0.1 * np.cos(unit)
    p = np.exp(second @ np.maximum(z, 0))
    p, rows = p / p.sum(), second @ np.diag(z > 0) @ first
    hessian = rows.T @ (np.diag(p) - np.outer(p, p)) @ rows
    return np.linalg.eigvalsh(hessian)[:-3:-1]


def _squared(ops, w, x, y):
    return (ops.total(w * x, 1) - y) ** 2


def _half_squared(ops, w, x, y):
    return _squared(ops, w, x, y) / 2


def _logistic(ops, w, x, y):
    z = ops.total(w * x, 1)
    return ops.softplus(z, 1.0) - y * z


def _softmax(ops, w, x, y):
    """Cross-entropy; targets are rows of the identity."""
    logits = ops.total(w * x[..., None, :], 1)
    return ops.log(ops.total(ops.exp(logits), 1)) - ops.total(logits * y, 1)


_X = np.sin(np.outer(np.arange(1, 8), [1.0, 2, 3]))
_Y = np.cos(np.arange(1.0, 8))
_W, _TEST = np.array([0.3, -0.2, 0.5]), np.array([0.4, 0.1, -0.6])
_KERNEL = np.array([[0.3, -0.2, 0.5], [-0.4, 0.1, 0.2], [0.6, 0.0, -0.1]])


def _of_examples(name, loss, params, targets, expected):
    given = {"loss": loss, "params": params, "inputs": _X, "targets": targets}
    return _exact(name, "parameter_hessian", expected, **given)


def _softmax_hessian():
    total = 0
    for x in _X:
        p = np.exp(_KERNEL @ x)
        p = p / p.sum()
        total += np.kron(np.diag(p) - np.outer(p, p), np.outer(x, x)) / len(_X)
    return total


def _ridge(damping):
    hessian = _X.T @ _X / 7 + damping * np.eye(3)
    return np.linalg.solve(hessian, _X.T @ _Y / 7), hessian


def _influences(name, damping):
    w, hessian = _ridge(damping)
    left, left_test = _X @ w - _Y, _TEST @ w - 0.3
    expected = left_test * left * (_X @ np.linalg.solve(hessian, _TEST))
    given = {"loss": _half_squared, "params": w, "inputs": _X, "targets": _Y}
    given |= {"x": _TEST, "y": 0.3, "damping": damping}
    return _exact(name, "influences", expected, **given)


def _influence_slope(name, index):
    w, hessian = _ridge(0.0)
    q, left = np.linalg.solve(hessian, _X[index]), _X[index] @ w - _Y[index]
    expected = left * ((_TEST @ q) * w + (_TEST @ w - 0.3) * q)
    given = {"loss": _half_squared, "params": w, "inputs": _X, "targets": _Y}
    given |= {"index": index, "x": _TEST, "y": 0.3}
    return _exact(name, "influence_slope", expected, **given)


_GOLDEN = [-10.37614456, -7.60456617, -3.92127351, -0.86337569]
_GOLDEN += [0.17642967, 0.12645296, -0.04121524, 0.01300874, *(8 * [0])]
_POWERS = 10 ** np.linspace(-2, 2, 100)

_of_digits = functools.partial(_exact, source=_NUMPY, atol=1e-8, why=_DIGITS)

CASES = [
    _banana("C7.1", 1.0, 1.0, 1.0),
    _banana("C7.2", 1.0, 2.5, 0.8),
    _banana("C7.3", 100.0, 1.0, 1.0),
    _banana("C7.4", 100.0, 2.5, 0.8),
    _bent("C8", _sines, [-0.3, -1.2, 2.0], np.diag(-np.sin([-0.3, -1.2, 2.0]))),
    _bent(
        *("fragility-9.1.1", _soft_neuron, _AT),
        _sigmoid(_NEURON @ _AT) * _sigmoid(-_NEURON @ _AT) * np.outer(_NEURON, _NEURON),
    ),
    _bent(
        *("fragility-9.1.2", networks.golden_relu_score, networks.GOLDEN),
        np.zeros((16, 16)),
    ),
    _bent("C5", _sigmoid_neuron, _AT, _sigmoid_bend()),
    _bent("C6", _log_cosh, _AT, _log_cosh_bend(_AT)),
    _of_digits(
        *("fragility-9.1.3", "input_eigenvalues", [0.06540671, 0, 0]),
        score=_sigmoid_neuron,
        x=_AT,
    ),
    _of_digits(
        *("fragility-9.1.4", "input_eigenvalues", [2.05905816, -1.48509944, 0, 0]),
        score=_two_soft_units,
        x=[0.2, -0.1, 0.7, 0.4],
    ),
    _of_digits(
        *("fragility-9.1.5", "eigenvector_angle", 0.82030094),
        score=_two_soft_units,
        x=[0.2, -0.1, 0.7, 0.4],
    ),
    _of_digits(
        *("fragility-9.5.8", "input_eigenvalues", _GOLDEN),
        score=networks.golden_smooth_score,
        x=networks.GOLDEN,
    ),
    _of_digits(
        *("fragility-9.5.9", "eigenvector_angle", 0.04948924),
        score=networks.golden_smooth_score,
        x=networks.GOLDEN,
    ),
    _exact(
        *("C4", "cross_entropy_eigenvalues"),
        _cross_entropy_eigenvalues(networks.GOLDEN),
        fn=networks.golden_relu,
        x=networks.GOLDEN,
    ),
    _exact(
        *("fragility-5.3.1", "map_jacobian", np.zeros((3, 3))),
        score=_sigmoid_neuron,
        x=_AT,
    ),
    _exact(
        *("fragility-5.3.2", "map_jacobian", _map_jacobian(_AT)),
        score=_soft_layer,
        x=_AT,
    ),
    _exact(
        *("C8.1", "inverse_product", -1 / np.sin([-0.3, -1.2, -2.0, -2.9])),
        score=_sines,
        x=[-0.3, -1.2, -2.0, -2.9],
        b=np.ones(4),
    ),
    _exact(
        *("D3", "projected_inverse", np.where(np.arange(100) < 90, 0, 1 / _POWERS)),
        matrix=np.diag(_POWERS),
        b=np.ones(100),
        k=10,
    ),
    _of_examples("C1", _squared, _W, _Y, 2 * _X.T @ _X / 7),
    _of_examples(
        *("C2", _logistic, _W, (_Y > 0) * 1.0),
        _X.T @ np.diag(_sigmoid(_X @ _W) * _sigmoid(-_X @ _W)) @ _X / 7,
    ),
    _of_examples(
        *("C3", _softmax, _KERNEL, np.eye(3)[np.arange(7) % 3]), _softmax_hessian()
    ),
    _influences("D1", 0.0),
    _influences("D5", 0.1),
    _influence_slope("fragility-9.8.1", 5),
]
