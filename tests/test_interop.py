"""Networks of other libraries under our functions, our maps under their measures."""

import functools

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from protojax import activations, attacks, attributions, objectives

KEY = jax.random.key(0)
X = jax.random.uniform(KEY, (8, 8, 3))
KERNEL, BIAS = 0.5 * jax.random.normal(jax.random.key(1), (3, 3, 3, 4)), jnp.ones(4) / 9
HEAD = jax.random.normal(jax.random.key(2), (4, 2))


def plain(x):
    layout = ("NHWC", "HWIO", "NHWC")
    h = jax.lax.conv_general_dilated(
        x[None], KERNEL, (2, 2), ((1, 1), (1, 1)), dimension_numbers=layout
    )[0]
    return jax.nn.relu(h + BIAS.reshape(1, 1, -1)).mean((0, 1)) @ HEAD


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        h = linen.relu(linen.Conv(4, (3, 3), strides=2, padding=1)(x))
        return linen.Dense(2, use_bias=False)(h.mean((0, 1)))


def in_linen():
    conv = {"kernel": KERNEL, "bias": BIAS}
    params = {"Conv_0": conv, "Dense_0": {"kernel": HEAD}}
    return functools.partial(Linen().apply, {"params": params})


class Nnx(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (3, 3), strides=2, padding=1, rngs=rngs)
        self.head = nnx.Linear(4, 2, use_bias=False, rngs=rngs)
        nnx.update(
            self, {"conv": {"kernel": KERNEL, "bias": BIAS}, "head": {"kernel": HEAD}}
        )

    def __call__(self, x):
        return self.head(nnx.relu(self.conv(x[None]))[0].mean((0, 1)))


class Equinox(equinox.Module):
    conv: equinox.nn.Conv2d
    head: equinox.nn.Linear

    def __call__(self, x):
        h = jax.nn.relu(self.conv(jnp.moveaxis(x, -1, 0)))
        return self.head(h.mean((1, 2)))


def in_equinox():
    net = Equinox(
        equinox.nn.Conv2d(3, 4, 3, stride=2, padding=1, key=KEY),
        equinox.nn.Linear(4, 2, use_bias=False, key=KEY),
    )
    arrays = jnp.moveaxis(KERNEL, (2, 3), (1, 0)), BIAS.reshape(4, 1, 1), HEAD.T
    of = lambda net: (net.conv.weight, net.conv.bias, net.head.weight)
    return equinox.tree_at(of, net, arrays)


def answers(fn, x):
    """An explanation that walks backwards, one of a twin, and an attack on one."""
    smooth = activations.replace(fn, activations.softplus(20.0))
    explain, twin = (
        lambda z, net=net: attributions.heatmap(
            attributions.gradient(objectives.logit(net, 0), z)
        )
        for net in (fn, smooth)
    )
    ball = {"radius": 0.03, "step_size": 0.01, "steps": 3}
    found = attacks.top_k(fn, explain, x, k=9, twin=twin, **ball)
    lift = attributions.deep_lift(objectives.logit(fn, 0), x)
    return {"deep_lift": lift, "twin": twin(x), "attack": found.trace}


def test_the_same_network_is_explained_alike_in_every_dialect():
    wanted = jax.jit(functools.partial(answers, plain))(X)
    assert jnp.any(wanted["attack"] != wanted["attack"][0])
    for build in (in_linen, Nnx, in_equinox):
        found = jax.jit(functools.partial(answers, build()))(X)
        for name, value in wanted.items():
            scale = jnp.max(jnp.abs(value))
            np.testing.assert_allclose(
                found[name], value, atol=1e-5 * scale, err_msg=f"{build}: {name}"
            )


def as_captum(fn):
    """A function of one image as Captum calls it: batches, channels first, PyTorch."""
    torch = pytest.importorskip("torch")
    many = jax.jit(jax.vmap(lambda x: fn(jnp.moveaxis(x, 0, -1))))
    return lambda planes: torch.tensor(np.asarray(many(planes.detach().numpy())))


@pytest.mark.filterwarnings("ignore")
def test_captums_measures_take_our_functions_and_know_a_right_map():
    torch = pytest.importorskip("torch")
    measures = pytest.importorskip("captum.metrics")
    weights = jax.random.normal(KEY, X.shape)
    score = lambda x: jnp.sum(weights * x)
    first = lambda a: jnp.moveaxis(a, -1, 0)
    explain = as_captum(lambda x: first(attributions.gradient(score, x)))
    planes = torch.tensor(np.array(first(X)))[None]

    def disturb(planes):
        noise = 0.1 * torch.randn(
            planes.shape, generator=torch.Generator().manual_seed(0)
        )
        return noise, planes - noise

    def infidelity(a):
        knobs = {"n_perturb_samples": 4}
        return measures.infidelity(as_captum(score), disturb, planes, a, **knobs)

    right = explain(planes)
    assert float(infidelity(right)[0]) < 1e-9  # of a linear score there is no other map
    assert float(infidelity(-right)[0]) > 0.01
    moved = measures.sensitivity_max(lambda planes: (explain(planes[0]),), planes)
    assert float(moved[0]) == 0
