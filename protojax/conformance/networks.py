"""The functions that cases explain and attack: small, and written over `Operations`."""

import numpy as np


def smooth(ops, x):
    """A line, a square and a sine, of one coordinate each."""
    return 5 * x[..., 0] + x[..., 1] ** 2 + ops.sin(x[..., 2])


def nested(ops, x):
    """Captum's BasicModel2."""
    return ops.relu(ops.relu(x[..., 0]) - 1 - ops.relu(x[..., 1]))


def nested_otherwise(ops, x):
    """Captum's BasicModel3, which is the same function."""
    return ops.relu(ops.relu(x[..., 0] - 1) - ops.relu(x[..., 1]))


def two_units(ops, x):
    """Captum's ReLUDeepLiftModel."""
    return 2 * ops.relu(x[..., 0]) + 2 * ops.relu(x[..., 1] - 1.5)


def pooled(ops, x):
    """Captum's LinearMaxPoolLinear."""
    return ops.total(ops.largest(x @ ops.array(np.eye(4))), 1)


def two_inputs(ops, x):
    """Captum's ReLULinearModel, its two inputs side by side."""
    first = ops.relu(3 * x[..., 0] + x[..., 1])
    return first + ops.relu(2 * x[..., 3] + 3 * x[..., 4])


def twice(ops, x):
    """One activation at two places."""
    w = ops.array([[1, 2], [-1, 1]])
    return ops.total(ops.relu(ops.relu(x @ w - 0.3) @ w + 0.1), 1)


def upward(ops, x):
    """A unit that rises with its inputs."""
    return ops.relu(x @ ops.array([1, 2, 3, 4]) - 1)


def downward(ops, x):
    """A unit that falls with its inputs."""
    return ops.relu(1 - x @ ops.array([1, 2, 3, 4]))


def squares(ops, x):
    """The sum of squares."""
    return ops.total(x**2, 1)


def product(ops, x):
    """The product of two coordinates."""
    del ops
    return x[..., 0] * x[..., 1]


def saturated(ops, x):
    """A unit that has no slope from one on."""
    return 1 - ops.relu(1 - x[..., 0])


def two_layers(ops, x):
    """Two layers of two units with biases."""
    h = ops.relu(x @ ops.array([[0, 2], [2, 1]]) + ops.array([-2, -1]))
    return ops.total(ops.relu(h @ ops.array([[1, 2], [0, 1]]) + ops.array([2, -2])), 1)


def still_unit(ops, x):
    """Two layers in which, from zero to (1, 1/2), one unit does not move."""
    first = ops.array([[1, 3, -1], [-2, 1, 1]])
    h = ops.relu(x @ first + ops.array([0.5, -1, 0]))
    h = h @ ops.array([[1, -2], [-1, 1], [2, 1]]) + ops.array([0, 0.5])
    return ops.relu(h) @ ops.array([2, -1])


def no_bias(ops, x):
    """Two layers without biases."""
    h = ops.relu(x @ ops.array([[1, -2, 0.5], [2, 1, -1], [-1, 3, 2]]))
    return h @ ops.array([1, -0.5, 2])


def multilayer(ops, x):
    """Captum's BasicModel_MultiLayer, first output."""
    h = ops.named(x @ ops.array(np.eye(3)), "linear0")
    h = h @ ops.array(np.ones((3, 4))) + ops.array([-10, 1, 1, 1])
    h = ops.named(ops.relu(ops.named(h, "linear1")), "relu")
    return h @ ops.array(np.ones(4)) - 1


def two_branches(ops, x):
    """Captum's BasicModel_MultiLayer with two branches of which one is asked for."""
    h = x @ ops.array(np.ones((3, 4))) + ops.array([-10, 1, 1, 1])
    return ops.total(ops.named(ops.relu(h), "relu1") + ops.relu(h), 1) - 1


def one_convolution(ops, x):
    """Captum's BasicModel_ConvNet_One_Conv, first output."""
    h = ops.convolve(x, ops.array(np.ones((3, 3, 1, 2))))
    h = ops.named(h + ops.array([[[-50, -75]]]), "conv1")
    h = ops.named(ops.relu(h), "relu1")
    votes = ops.array([[[1, 1], [1, -1]], [[1, -1], [1, -1]]])
    return ops.relu(ops.total(h * votes, 3))


def bilinear(ops, w):
    """Linear in a layer's weights."""
    return w @ ops.array([10, 35])


def three_to_two(ops, x):
    """A layer of two units, with a bias."""
    return x @ ops.array([[1, -2], [-1, 1], [0.5, 0]]) + 7


def log_unit(ops, x, target):
    """Minus log of Captum's BasicModel, 1 - relu(1 - x), at one coordinate."""
    return -ops.log(ops.absolute(1 - ops.relu(1 - x[..., target])))


def golden(ops, x, act):
    """The logits of a network given by formulas; `act` is its non-linearity."""
    unit, pixel, out = np.arange(8.0), np.arange(16.0), np.arange(3.0)
    first = np.sin(0.7 * (unit[:, None] + 1) * (pixel + 1))
    second = np.cos(0.5 * (out[:, None] + 1) * (unit + 1))
    h = act(x @ ops.array(first.T) + ops.array(0.1 * np.cos(unit)))
    return h @ ops.array(second.T)


def golden_relu(ops, x):
    """The golden network."""
    return golden(ops, x, ops.relu)


def golden_smooth(ops, x):
    """Its twin, softplus of sharpness 4."""
    return golden(ops, x, lambda z: ops.softplus(z, 4.0))


def golden_relu_score(ops, x):
    """Its first logit."""
    return golden_relu(ops, x)[..., 0]


def golden_smooth_score(ops, x):
    """The first logit of its twin."""
    return golden_smooth(ops, x)[..., 0]


GOLDEN = 0.5 + 0.5 * np.sin(0.3 * np.arange(16.0))
"""The image of the golden network, 4 x 4, row after row."""
