"""What the tests of the contract share: networks of every kind, and two images."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from protojax import activations, attributions, models
from tests import small

SIZE, CLASSES, RADIUS = 8, 3, 0.03
KEY = jax.random.key(0)
X = jax.random.uniform(jax.random.key(1), (SIZE, SIZE, 3))
BATCH = jnp.stack([X, 1 - X])


def plain():
    """A function that closes over its weights, with a bias the ReLUs can cross."""
    first, second, last = (
        0.5 * jax.random.normal(jax.random.fold_in(KEY, i), shape)
        for i, shape in enumerate([(3, 3, 3, 4), (3, 3, 4, 4), (4, CLASSES)])
    )

    def fn(x):
        for kernel in (first, second):
            x = jax.lax.conv_general_dilated(
                x[None],
                kernel,
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )[0]
            x = jnp.maximum(x, 0)
        return jnp.mean(checkpoint_name(x, "features"), (0, 1)) @ last

    return fn


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3))(x)), (3, 3), (2, 2), "SAME")
        x = x + nn.relu(nn.Conv(4, (3, 3))(x))
        x = checkpoint_name(x, "features")
        return nn.Dense(CLASSES)(nn.avg_pool(x, (4, 4)).ravel())


def linen():
    return functools.partial(Linen().apply, jax.jit(Linen().init)(KEY, X))


def partial():
    model = models.ConvNet(classes=CLASSES, widths=(4, 4), groups=2)
    return jax.tree_util.Partial(model.apply, jax.jit(model.init)(KEY, X))


class Nnx(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
        self.head = nnx.Linear(4, CLASSES, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x[None])))[0]
        return self.head(jnp.mean(checkpoint_name(x, "features"), (0, 1)))


def transformer():
    model = models.VisionTransformer(
        classes=CLASSES, patch=4, width=8, depth=1, heads=2
    )
    apply = functools.partial(model.apply, jax.jit(model.init)(KEY, X))
    return lambda x: apply(x)


LAYERS = dict.fromkeys(["plain", "linen", "nnx"], "features")
LAYERS |= {"partial": "stage1", "transformer": "blocks.0"}
NETS = {
    "plain": plain,
    "linen": linen,
    "nnx": Nnx,
    "partial": partial,
    "transformer": transformer,
}
SLOW = {"partial", "transformer"}
"""Their programs take longest to compile: `make test-slow` runs them."""

KINDS = small.slow_among(NETS, SLOW)


@functools.cache
def built(kind):
    return NETS[kind]()


def counting(fn):
    """A function, and a list that grows whenever it is traced."""
    traces = []

    def counted(*args):
        traces.append(args)
        return fn(*args)

    return counted, traces


def explanations(fn, x):
    """Of the class that is predicted: the gradient map of a network and of its twin."""
    y = jnp.argmax(fn(x))
    try:
        smooth = activations.replace(fn, activations.softplus(10.0))
        jax.eval_shape(smooth, x)
    except activations.NoReLU:
        smooth = fn
    explain, twin = (
        lambda z, f=f: attributions.heatmap(attributions.gradient(lambda u: f(u)[y], z))
        for f in (fn, smooth)
    )
    return explain, twin, lambda z: smooth(z)[y]
