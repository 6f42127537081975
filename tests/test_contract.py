"""One list of everything, on every kind of network, under `jit` and `vmap`.

What is added to `ATTRIBUTIONS`, `ATTACKS` or `METRICS` is held to the contract: shapes,
finite values, one trace, and for attacks ball, bounds, mask and never worse than the
start. Each network is compiled once for all attributions, and once for all attacks.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from protojax import activations, attacks, attributions, metrics, models, objectives

SIZE, CLASSES, RADIUS = 8, 3, 0.03
KEY = jax.random.key(0)
X = jax.random.uniform(jax.random.key(1), (SIZE, SIZE, 3))
BATCH = jnp.stack([X, 1 - X])

ATTRIBUTIONS = {
    "gradient": attributions.gradient,
    "input_x_gradient": attributions.input_x_gradient,
    "integrated_gradients": functools.partial(
        attributions.integrated_gradients, steps=3
    ),
    "smooth_gradient": functools.partial(
        attributions.smooth_gradient, key=KEY, samples=3
    ),
    "deep_lift": attributions.deep_lift,
    "lrp": attributions.lrp,
    "deep_taylor": attributions.deep_taylor,
    "guided_gradient": attributions.guided_gradient,
    "grad_cam": functools.partial(attributions.grad_cam, layer="features"),
    "guided_grad_cam": functools.partial(
        attributions.guided_grad_cam, layer="features"
    ),
}
ONLY_RELU = {"guided_gradient", "guided_grad_cam"}


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
    return functools.partial(Linen().apply, Linen().init(KEY, X))


def partial():
    return jax.tree_util.Partial(Linen().apply, Linen().init(KEY, X))


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
    apply = functools.partial(model.apply, model.init(KEY, X))
    return lambda x: apply(x)


NETS = {
    "plain": plain,
    "linen": linen,
    "nnx": Nnx,
    "partial": partial,
    "transformer": transformer,
}


@pytest.fixture(scope="module", params=NETS)
def net(request):
    return request.param, NETS[request.param]()


def counting(fn):
    """A function, and a list that grows whenever it is traced."""
    traces = []

    def counted(*args):
        traces.append(args)
        return fn(*args)

    return counted, traces


def explained(name, fn, x):
    y = jnp.argmax(fn(x))
    return ATTRIBUTIONS[name](lambda z: fn(z)[y], x)


def names_for(kind):
    if kind != "transformer":
        return list(ATTRIBUTIONS)
    # No ReLU to guide, no layer of pixels to look at, and no rule of LRP for attention.
    return [
        "gradient",
        "input_x_gradient",
        "integrated_gradients",
        "smooth_gradient",
    ] + ["deep_lift"]


def test_attributions_keep_the_contract(net):
    kind, fn = net
    names = names_for(kind)

    def all_of(x):
        return {name: explained(name, fn, x) for name in names}

    counted, traces = counting(all_of)
    batched = jax.jit(jax.vmap(counted))
    maps = batched(BATCH)
    batched(BATCH / 2)
    assert len(traces) == 1
    one = jax.jit(all_of)(X)
    for name in names:
        assert maps[name].shape == BATCH.shape, name
        assert jnp.all(jnp.isfinite(maps[name])), name
        assert jnp.any(maps[name] != 0), name
        scale = jnp.max(jnp.abs(one[name]))
        # float32, summed in another order by the batched program
        np.testing.assert_allclose(maps[name][0], one[name], atol=1e-4 * scale)
        heat = attributions.heatmap(one[name])
        assert heat.shape == (SIZE, SIZE) and jnp.all(heat >= 0)
        np.testing.assert_allclose(jnp.sum(heat), 1, rtol=1e-5)


def attacked(fn, x, radius):
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
    score = lambda z: smooth(z)[y]
    before = explain(x)
    climb = {"radius": radius, "step_size": radius / 2, "steps": 3}
    objective = objectives.top_k(twin, before, k=9)
    region = jnp.zeros_like(before).at[: SIZE // 2].set(1)
    mask = jnp.ones((SIZE, SIZE)).at[0].set(0)
    return {
        "pgd": (objective, attacks.pgd(objective, x, **climb)),
        "masked": (objective, attacks.pgd(objective, x, mask=mask, key=KEY, **climb)),
        "l2": (objective, attacks.pgd(objective, x, norm="l2", **climb)),
        "random_sign": (
            objective,
            attacks.random_sign(objective, x, radius=radius, key=KEY, samples=3),
        ),
        "random_walk": (objective, attacks.random_walk(objective, x, key=KEY, **climb)),
        "eigenvector": (
            objective,
            attacks.eigenvector(
                objective, x, score=score, radius=radius, key=KEY, steps=4
            ),
        ),
        "top_k": (
            objectives.top_k(explain, before, k=9),
            attacks.top_k(fn, explain, x, k=9, twin=twin, **climb),
        ),
        "targeted": (
            objectives.linear(explain, region),
            attacks.targeted(fn, explain, x, target=region, twin=twin, **climb),
        ),
        "mass_center": (
            lambda z: metrics.center_shift(before, explain(z)),
            attacks.mass_center(fn, explain, x, twin=twin, **climb),
        ),
        "mass_center_truncated": (
            lambda z: metrics.center_shift(before, explain(z)),
            attacks.mass_center_truncated(fn, explain, x, twin=twin, **climb),
        ),
    }


def test_attacks_keep_the_contract(net):
    _, fn = net

    def all_of(x, radius):
        found = attacked(fn, x, radius)
        kept = jnp.argmax(fn(x))
        return {
            name: {
                "x": out.x,
                "value": out.value,
                "again": objective(out.x),
                "start": objective(x),
                "trace": out.trace,
                "label_kept": jnp.argmax(fn(out.x)) == kept,
                "stalled": out.stalled,
            }
            for name, (objective, out) in found.items()
        }

    counted, traces = counting(all_of)
    program = jax.jit(jax.vmap(counted, (0, None)))
    program(BATCH, RADIUS / 2)
    found = program(BATCH, RADIUS)
    assert len(traces) == 1
    for name, out in found.items():
        change = out["x"] - BATCH
        assert jnp.all((out["x"] >= 0) & (out["x"] <= 1)), name
        if name == "l2":
            assert jnp.all(
                jnp.linalg.norm(change.reshape(2, -1), axis=1) < RADIUS * 1.00001
            )
        else:
            assert jnp.all(jnp.abs(change) <= RADIUS * (1 + 1e-6)), name
        assert jnp.all(jnp.isfinite(out["trace"])), name
        assert not jnp.any(out["stalled"]), name
        if name in ("pgd", "masked", "l2", "top_k"):
            assert jnp.any(change != 0), name
        slack = 1e-5 * (1 + jnp.abs(out["start"]))  # float32, compiled twice
        assert jnp.all(out["value"] >= out["start"] - slack), name
        np.testing.assert_allclose(out["value"], out["again"], rtol=1e-3, atol=1e-4)
        if name in ("top_k", "targeted", "mass_center", "mass_center_truncated"):
            assert jnp.all(out["label_kept"]), name
    assert jnp.all((found["masked"]["x"] - BATCH)[:, 0] == 0)


def maps(count=2):
    keys = jax.random.split(KEY, count)
    return [attributions.heatmap(jax.random.normal(k, (SIZE, SIZE, 3))) for k in keys]


METRICS = {
    "top_k_intersection": (functools.partial(metrics.top_k_intersection, k=9), 1.0),
    "rank_correlation": (metrics.rank_correlation, 1.0),
    "kendall": (metrics.kendall, 1.0),
    "center_shift": (metrics.center_shift, 0.0),
    "truncated_center_shift": (metrics.truncated_center_shift, 0.0),
    "linf": (metrics.linf, 0.0),
    "ssim": (functools.partial(metrics.ssim, data_range=1.0), 1.0),
}


@pytest.mark.parametrize("name", METRICS)
def test_metrics_keep_the_contract(name):
    metric, best = METRICS[name]
    a, b = maps()
    program = jax.jit(jax.vmap(metric))
    same, other = program(jnp.stack([a, a]), jnp.stack([a, b]))
    np.testing.assert_allclose(same, best, atol=1e-6)
    assert jnp.isfinite(other) and other.shape == ()
    assert (other < best) if best else (other >= best)
    np.testing.assert_allclose(other, metric(a, b), rtol=1e-5, atol=1e-6)


OBJECTIVES = {
    "linear": lambda explain, a: objectives.linear(explain, a),
    "top_k": lambda explain, a: objectives.top_k(explain, a, k=9),
    "mass_center": lambda explain, _: objectives.mass_center(
        explain, jnp.array([1.0, 0.0])
    ),
    "center_distance": lambda explain, _: objectives.center_distance(
        explain, jnp.array([0.0, 0.0])
    ),
    "target_map": lambda explain, a: objectives.target_map(explain, a[::-1]),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_small_step_up_the_gradient_raises_an_objective(name):
    explain = lambda z: attributions.heatmap(z**2)
    objective = OBJECTIVES[name](explain, explain(X))
    value, slope = jax.jit(jax.value_and_grad(objective))(X)
    length = jnp.linalg.norm(slope)
    assert value.shape == () and jnp.isfinite(length) and length > 0
    assert objective(X + 1e-2 * slope / length) > value
