"""Networks of other libraries under our functions, our maps under their measures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import activations, attacks, attributions, metrics, objectives
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


def in_torch(fn):
    """A function of one image as PyTorch's have it: of batches, channels first."""
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
    explain = in_torch(lambda x: first(attributions.gradient(score, x)))
    planes = torch.tensor(np.array(first(X)))[None]

    def disturb(planes):
        noise = 0.1 * torch.randn(
            planes.shape, generator=torch.Generator().manual_seed(0)
        )
        return noise, planes - noise

    def infidelity(a):
        knobs = {"n_perturb_samples": 4}
        return measures.infidelity(in_torch(score), disturb, planes, a, **knobs)

    right = explain(planes)
    assert float(infidelity(right)[0]) < 1e-9  # of a linear score there is no other map
    assert float(infidelity(-right)[0]) > 0.01
    moved = measures.sensitivity_max(lambda planes: (explain(planes[0]),), planes)
    assert float(moved[0]) == 0


@pytest.mark.slow  # it imports OpenCV, pandas and PyTorch
@pytest.mark.filterwarnings("ignore")
def test_quantus_measures_our_maps_as_we_do():
    torch = pytest.importorskip("torch")
    quantus = pytest.importorskip(
        "quantus", reason="Quantus comes with the extra bench"
    )
    fn = lambda x: dialects.plain(jnp.broadcast_to(x, (8, 8, 3)))
    x, inside = X[..., :1], np.arange(64).reshape(8, 8) % 8 < 3

    def explain(x, y):
        score = objectives.logit(fn, y)
        return attributions.heatmap(attributions.input_x_gradient(score, x))

    class Net(torch.nn.Module):
        forward = staticmethod(in_torch(fn))

    def explained(inputs, targets, **_):
        return np.stack(
            [explain(x[0][..., None], y)[None] for x, y in zip(inputs, targets)]
        )

    a, other = explain(x, 0), explain(x, 1)
    batch = {"model": Net().eval(), "x_batch": np.array(x)[None, ..., 0][None]}
    batch |= {"y_batch": np.array([0]), "a_batch": np.array(a)[None, None]}
    batch |= {"s_batch": inside[None, None], "softmax": True}
    batch |= {"explain_func": explained, "channel_first": True}
    plain = {"disable_warnings": True, "normalise": False, "return_aggregate": False}
    flipping = {"features_in_step": 8, "perturb_baseline": "black"}  # the least pixel
    rank = {"similarity_func": quantus.correlation_spearman, "num_classes": 2}
    curve = metrics.deletion(fn, x, a, 0, baseline=x.min(), steps=8).values
    for measure, expected in (
        (quantus.PointingGame(**plain), metrics.pointing_game(a, inside)),
        (quantus.RelevanceMassAccuracy(**plain), metrics.pointing_energy(a, inside)),
        (quantus.RandomLogit(**rank, **plain), metrics.rank_correlation(a, other)),
        (quantus.PixelFlipping(**flipping, **plain), curve[1:]),
    ):
        (found,) = measure(**batch)
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=str(measure))
