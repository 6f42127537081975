import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import activations, attributions
from protojax.models import pretrained

KEY = jax.random.key(0)
X = jax.random.uniform(KEY, (6, 6, 3))
KERNEL = jax.random.normal(KEY, (3, 3, 3, 4))


@jax.jit
def score(x):
    h = jax.lax.conv_general_dilated(
        x[None], KERNEL, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.mean(jax.nn.relu(h) ** 2)


gradient = jax.jit(jax.grad(score))


def test_a_heatmap_is_non_negative_and_sums_to_one():
    a = jax.random.normal(KEY, (5, 4, 3))
    found = attributions.heatmap(a)
    np.testing.assert_allclose(found, np.abs(a).sum(-1) / np.abs(a).sum(), rtol=1e-6)
    np.testing.assert_allclose(found, attributions.heatmap(-7 * a), rtol=1e-6)


def test_the_heatmap_of_nothing_is_uniform_and_has_no_derivative():
    zero = jnp.zeros((2, 4, 3))
    assert attributions.heatmap(zero).tolist() == [[1 / 8] * 4] * 2
    assert not jnp.any(jax.jit(jax.jacobian(attributions.heatmap))(zero))


def test_a_dead_pixel_has_no_derivative_in_a_heatmap():
    a = jnp.array([[[0.0], [2.0]]])
    slope = jax.jit(jax.jacobian(attributions.heatmap))(a)
    assert not jnp.any(slope[..., 0, 0, 0])


def test_integrated_gradients_sum_to_the_difference():
    baseline = 1 - X
    found = jax.jit(
        functools.partial(attributions.integrated_gradients, score, baseline=baseline)
    )(X)
    np.testing.assert_allclose(jnp.sum(found), score(X) - score(baseline), rtol=1e-3)


def test_more_steps_of_quadrature_bring_completeness_nearer():
    def error(rule, steps):
        run = functools.partial(
            attributions.integrated_gradients, score, steps=steps, rule=rule
        )
        return abs(float(jnp.sum(jax.jit(run)(X)) - score(X)))

    assert error(attributions.right, 64) < error(attributions.right, 8) / 6
    assert error(attributions.midpoint, 8) < error(attributions.right, 8) / 6


@pytest.mark.optimized
def test_integrating_with_more_steps_takes_no_more_memory():
    def memory(method):
        def objective(x):
            return jnp.sum(attributions.heatmap(method(score, x))[:2])

        compiled = jax.jit(jax.grad(objective)).lower(X).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    integrated = attributions.integrated_gradients
    smooth = functools.partial(attributions.smooth_gradient, key=KEY)
    # what is kept of a step is its partial sum, at most
    kept = 200 * X.nbytes * 1.2
    for method, name in ((integrated, "steps"), (smooth, "samples")):
        few, many = (memory(functools.partial(method, **{name: n})) for n in (2, 202))
        assert many - few <= kept


def test_smooth_gradient_without_noise_is_the_gradient():
    found = attributions.smooth_gradient(score, X, key=KEY, samples=3, sigma=0.0)
    np.testing.assert_allclose(found, gradient(X), rtol=1e-5, atol=1e-7)


def test_smooth_gradient_of_a_step_is_a_gaussian_density():
    def ramp(x):
        return jnp.sum(jax.nn.relu(x))

    x = jnp.full((1, 1, 1), 0.1)
    run = functools.partial(attributions.smooth_gradient, ramp, samples=20_000)
    found = jax.jit(functools.partial(run, sigma=0.2, key=KEY))(x)
    np.testing.assert_allclose(found, 0.6915, atol=0.01)  # Phi(0.1 / 0.2)


def test_smooth_gradient_follows_its_key():
    smooth = functools.partial(attributions.smooth_gradient, score, X, samples=4)
    run = jax.jit(lambda key: smooth(key=key))
    a, b = run(KEY), run(jax.random.key(1))
    assert jnp.array_equal(a, run(KEY))
    assert not jnp.array_equal(a, b)


def test_grad_cam_shares_its_map_among_the_channels():
    found = jax.jit(functools.partial(attributions.grad_cam, score, layer="relu:0"))(X)
    run = functools.partial(attributions.class_activation, score, layer="relu:0")
    cam = jax.jit(run)(X)
    assert found.shape == X.shape
    np.testing.assert_allclose(found.sum(-1), jax.nn.relu(cam).reshape(6, 6), rtol=1e-5)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="`x` is uint8: pass float32 pixels"):
        attributions.gradient(score, jnp.ones((2, 2, 3), "uint8"))
    with pytest.raises(ValueError, match="`x` has NaN pixels: repair or drop"):
        attributions.gradient(score, X.at[0, 0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match=r"`x` has shape \(1, 6, 6, 3\).*jax.vmap"):
        attributions.gradient(score, X[None])
    with pytest.raises(ValueError, match=r"`attribution` has shape \(1, 6, 6, 3\)"):
        attributions.heatmap(X[None])
    with pytest.raises(ValueError, match=r"`baseline` has shape \(3,\).*broadcast_to"):
        attributions.integrated_gradients(score, X, baseline=jnp.ones(3))
    with pytest.raises(ValueError, match="`steps` is 0: it must be at least 1"):
        attributions.integrated_gradients(score, X, steps=0)
    with pytest.raises(ValueError, match="`samples` is 0: it must be at least 1"):
        attributions.smooth_gradient(score, X, key=KEY, samples=0)
    with pytest.raises(ValueError, match="`sigma` is -1.0: it must be zero or more"):
        attributions.smooth_gradient(score, X, key=KEY, sigma=-1.0)
    with pytest.raises(ValueError, match="outside of `low` and `high`: pass the least"):
        attributions.deep_taylor(score, X, high=0.5)
    with pytest.raises(ValueError, match="the trapezoid rule needs 2"):
        attributions.trapezoid(1)
    with pytest.raises(ValueError, match="no layer is called 'relu:1'"):
        attributions.grad_cam(score, X, layer="relu:1")


@pytest.mark.parametrize(
    "method",
    [
        attributions.gradient,
        attributions.deep_lift,
        attributions.lrp,
        attributions.deep_taylor,
        attributions.guided_gradient,
        functools.partial(attributions.smooth_gradient, key=KEY),
        attributions.integrated_gradients,
        functools.partial(attributions.grad_cam, layer="relu:0"),
        functools.partial(attributions.conductance, layer="relu:0"),
    ],
)
def test_what_is_no_score_is_named(method):
    relu = jax.nn.relu
    with pytest.raises(ValueError, match=r"`score` gives values of shape \(3,\)"):
        method(lambda x: relu(x).sum((0, 1)), X)
    with pytest.raises(ValueError, match=r"shape \(\(\), \(\)\): it must give one"):
        method(lambda x: (relu(x).sum(), x.sum()), X)


def test_grad_cam_of_what_is_no_feature_map_is_refused():
    def dense(x):
        return jnp.sum(jax.nn.relu(x.ravel()))

    with pytest.raises(ValueError, match="'relu:0' has 1 axes: Grad-CAM needs a"):
        attributions.grad_cam(dense, X, layer="relu:0")


@pytest.mark.realdata
@pytest.mark.parametrize("network", ["squeezenet", "resnet"])
def test_deep_lift_is_complete_on_trained_networks(network, data_folder):
    if network == "squeezenet":
        model, weights = pretrained.squeezenet1_1(
            data_folder / "imagenet_squeezenet1_1.npz"
        )
        images = np.load(data_folder / "imagenet_samples_224.npz")["images"][:2]
    else:
        model, weights = pretrained.cifar10_resnet(
            data_folder / "cifar10_resnet20.npz", depth=20
        )
        images = np.load(data_folder / "cifar10.npz")["x_test"][:4]
    x = jnp.asarray(images, "float32") / 255

    def errors(weights, x):
        fn = functools.partial(model.apply, weights)
        y = fn(x).argmax()

        def error(baseline):
            found = attributions.deep_lift(lambda z: fn(z)[y], x, baseline=baseline)
            wanted = fn(x)[y] - fn(baseline)[y]
            return (jnp.sum(found) - wanted) / wanted

        return error(jnp.zeros_like(x))

    found = jax.jit(jax.vmap(errors, in_axes=(None, 0)))(weights, x)
    assert jnp.max(jnp.abs(found)) < 1e-5


def test_the_relevance_of_deep_taylor_is_never_negative_below_a_positive_score():
    def positive(x):
        h = jax.lax.conv_general_dilated(
            x[None] - 0.5,
            KERNEL,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jnp.sum(jax.nn.relu(h))

    found = jax.jit(functools.partial(attributions.deep_taylor, positive))(X)
    assert jnp.min(found) >= -1e-5
    np.testing.assert_allclose(jnp.sum(found), positive(X), rtol=1e-4)
    box = activations.box(0.0, 1.0)
    relevance = functools.partial(attributions.lrp, positive)
    again = jax.jit(lambda x: relevance(x, rule=activations.z_plus, first=box))(X)
    np.testing.assert_allclose(found, again)
