"""Networks of other libraries under our functions, our maps under their measures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import activations, attacks, attributions, objectives
from tests import dialects

KEY = jax.random.key(0)
X = jax.random.uniform(KEY, (8, 8, 3))


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
    wanted = jax.jit(functools.partial(answers, dialects.plain))(X)
    assert jnp.any(wanted["attack"] != wanted["attack"][0])
    for build in (dialects.in_linen, dialects.Nnx, dialects.in_equinox):
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
