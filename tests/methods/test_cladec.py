"""What decoders are trained for, against closed forms; and members among others."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from protojax import activations, attacks, cladec, models, objectives, srae

KEY = jax.random.key(0)
SIGMA = np.diag([4.0, 3.0, 2.0, 1.0])


@pytest.mark.parametrize(
    ("encoder", "error", "best"),
    [
        (np.eye(4)[:2], 3, 3),
        (np.eye(4)[2:], 7, 3),
        (np.full((1, 4), 0.5), 7, 6),
        (np.eye(4)[3:], 9, 6),
    ],
)
def test_F8_errors_of_linear_decoders_and_of_the_best_autoencoder(encoder, error, best):
    decoder, found = cladec.linear_error(jnp.asarray(SIGMA), jnp.asarray(encoder))
    assert found == pytest.approx(error, rel=1e-6)
    assert cladec.principal_error(jnp.asarray(SIGMA), size=len(encoder)) == (
        pytest.approx(best, rel=1e-6)
    )
    if len(encoder) == 1 and error == 7:
        np.testing.assert_allclose(decoder[:, 0], [0.8, 0.6, 0.4, 0.2], rtol=1e-6)
    mix = np.random.default_rng(0).normal(size=(len(encoder),) * 2)
    again, same = cladec.linear_error(jnp.asarray(SIGMA), jnp.asarray(mix @ encoder))
    assert same == pytest.approx(error, rel=1e-4)
    np.testing.assert_allclose(again @ mix, decoder, atol=1e-4)


def test_F8_no_linear_decoder_is_better_than_principal_components():
    def both(key):
        first, second = jax.random.split(key)
        root = jax.random.normal(first, (6, 6))
        covariance = root @ root.T
        encoder = jax.random.normal(second, (2, 6))
        return (
            cladec.linear_error(covariance, encoder)[1],
            cladec.principal_error(covariance, size=2),
        )

    with jax.enable_x64(True):
        found = jax.jit(jax.vmap(both))(jax.random.split(KEY, 1000))
        errors, bounds = map(np.asarray, found)
    assert np.all(errors >= bounds - 1e-9)
    with pytest.raises(ValueError, match="`size` is 5: choose 0 to 4"):
        cladec.principal_error(jnp.asarray(SIGMA), size=5)


def test_principal_components_and_linear_decoders_of_data_agree_with_covariances():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(300, 4)) @ np.diag([2.0, 1.5, 1.0, 0.5]) + 3
    data = jnp.asarray(data, jnp.float32)
    covariance = jnp.asarray(np.cov(np.asarray(data).T, bias=True))
    mean, rows = cladec.principal_components(data, size=2)
    back = mean[None] + (data - mean[None]) @ rows.T @ rows
    error = float(jnp.sum((data - back) ** 2)) / 300
    assert error == pytest.approx(
        float(cladec.principal_error(covariance, size=2)), rel=1e-4
    )
    encoder = jnp.asarray(rng.normal(size=(2, 4)), jnp.float32)
    codes = data @ encoder.T
    kernel, bias = cladec.linear_decoder(codes, data)
    error = float(jnp.sum((data - codes @ kernel - bias[None]) ** 2)) / 300
    assert error == pytest.approx(
        float(cladec.linear_error(covariance, encoder)[1]), rel=1e-3
    )
    with pytest.raises(ValueError, match="`size` is 5: choose 1 to 4"):
        cladec.principal_components(data, size=5)


def linear_problem():
    """Codes of images by a linear encoder, and a linear decoder to be trained."""
    rng = np.random.default_rng(1)
    images = jnp.asarray(rng.normal(size=(40, 2, 2, 1)))
    codes = images.reshape(40, 4) @ jnp.asarray(rng.normal(size=(4, 2)))
    labels = jnp.asarray(rng.integers(3, size=40))
    head = jnp.asarray(rng.normal(size=(4, 3)))

    def reconstruct(params, index):
        return (codes[index] @ params["kernel"] + params["bias"]).reshape(2, 2, 1)

    params = {"kernel": jnp.zeros((2, 4)), "bias": jnp.zeros(4)}
    return images, codes, labels, lambda x: x.ravel() @ head, reconstruct, params


def trained(alpha, rounds=200):
    images, _, labels, classify, reconstruct, params = linear_problem()
    sgd = optax.sgd(0.3)
    loss = cladec.on_batches(reconstruct, classify, images, labels, alpha=alpha)
    return srae.train(
        loss,
        srae.member(params, sgd, rounds=rounds),
        sgd,
        batches=lambda _: jnp.arange(40)[None],
        key=KEY,
    )


def test_a_linear_decoder_that_is_trained_is_that_of_the_closed_form():
    with jax.enable_x64(True):
        images, codes, *_ = linear_problem()
        kernel, bias = cladec.linear_decoder(codes, images.reshape(40, 4), ridge=0.0)
        found = jax.jit(trained)(0.0).params
        np.testing.assert_allclose(found["kernel"], kernel, atol=1e-5)
        np.testing.assert_allclose(found["bias"], bias, atol=1e-5)


def test_alphas_trained_at_once_are_each_what_they_are_alone():
    alphas = np.array([0.0, 0.3, 1.0])
    with jax.enable_x64(True):
        one = chex.assert_max_traces(lambda alpha: trained(alpha, rounds=20), n=2)
        many = jax.jit(jax.vmap(one))(jnp.asarray(alphas))
        alone = jax.jit(one)
        for i, alpha in enumerate(alphas):
            member = jax.tree.map(lambda leaf, i=i: leaf[i], many)
            expected = alone(alpha)
            chex.assert_trees_all_close(member.params, expected.params, atol=1e-9)
            np.testing.assert_allclose(member.trace, expected.trace, atol=1e-9)


def test_PEERS_F4_at_both_ends_one_of_two_gradients_is_left():
    images, _, labels, classify, reconstruct, params = linear_problem()
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    batch = jnp.arange(40)

    def loss(alpha, classify=classify):
        on = cladec.on_batches(reconstruct, classify, images, labels, alpha=alpha)
        return lambda p: on(p, batch, None)

    each = jax.vmap(reconstruct, (None, 0))
    squares = lambda p: jnp.mean((each(p, batch) - images) ** 2)
    ce = lambda p: jnp.mean(
        optax.softmax_cross_entropy_with_integer_labels(
            jax.vmap(classify)(each(p, batch)), labels
        )
    )
    other = lambda x: 7 * classify(x) ** 2
    losses = loss(0.0), squares, loss(0.0, other), loss(1.0), ce
    first, square, unseen, last, classified = jax.jit(
        lambda p: [jax.grad(one)(p) for one in losses]
    )(params)
    chex.assert_trees_all_close(first, square, rtol=1e-5)
    chex.assert_trees_all_close(unseen, square, rtol=1e-5)  # nothing comes through it
    chex.assert_trees_all_close(last, classified, rtol=1e-5, atol=1e-7)


def test_a_sum_over_pixels_weighs_as_a_mean_of_another_alpha():
    same = lambda pixels: round(float(cladec.same_weight(1e-3, pixels=pixels)), 2)
    assert [same(784), same(1024), same(3072)] == [0.44, 0.51, 0.75]
    assert cladec.same_weight(1.0, pixels=9) == 1


def filled(like):
    """Random numbers of the shapes of parameters, without compiling to draw them."""
    draw = np.random.default_rng(0)
    fill = lambda leaf: jnp.asarray(0.3 * draw.normal(size=leaf.shape), leaf.dtype)
    return jax.tree.map(fill, like)


def test_explanations_are_of_any_layer_under_attack_and_of_some_units():
    model, x = models.SmallClassifier(classes=3), jax.random.uniform(KEY, (8, 8, 1))
    weights = filled(jax.eval_shape(model.init, KEY, x))
    fn = functools.partial(model.apply, weights)
    decoder, shape = models.SmallDecoder(x.shape), cladec.code_shape(fn, "conv", x)
    assert shape == (2, 2, 64)
    decode = functools.partial(
        decoder.apply, filled(jax.eval_shape(decoder.init, KEY, jnp.zeros(shape)))
    )
    explain = cladec.reconstruction(fn, "conv", decode)
    some = (jnp.arange(64) % 2)[None, None]
    masked = cladec.reconstruction(fn, "conv", decode, units=some)
    knobs = {"radius": 0.05, "step_size": 0.02, "steps": 3, "key": KEY}

    @jax.jit
    def run(x):
        value = activations.record(fn, ["conv"])(x)[1]["conv"]
        before = explain(x)
        away = lambda z: jnp.mean((explain(z) - before) ** 2)
        kept = objectives.label_kept(away, fn, x)
        z = attacks.pgd(away, x, select=kept, **knobs).x
        pairs = (before, decode(value)), (masked(x), decode(value * some))
        return pairs, away(z), fn(x), fn(z)

    pairs, moved, before, after = run(x)
    for found, expected in pairs:
        assert found.shape == x.shape
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert moved > 0 and np.argmax(before) == np.argmax(after)
    with pytest.raises(ValueError, match=r"`layer` is 'convs': choose from .*conv"):
        cladec.code_shape(fn, "convs", x)
    with pytest.raises(ValueError, match="convs"):
        cladec.reconstruction(fn, "convs", decode)(x)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, np.nan])
def test_an_alpha_that_is_none_is_refused(alpha):
    with pytest.raises(ValueError, match=f"`alpha` is {alpha}"):
        cladec.on_batches(jnp.add, jnp.ravel, jnp.ones((1, 1, 1, 1)), 0, alpha=alpha)
    x = jnp.zeros((1, 1, 1))
    with pytest.raises(ValueError, match="choose from 0"):
        cladec.objective(x, x, jnp.zeros(2), 0, alpha=alpha)


def test_shapes_that_would_broadcast_are_refused():
    x = jnp.zeros((2, 2, 3))
    with pytest.raises(AssertionError):
        cladec.objective(x, x[..., :1], jnp.zeros(2), 0, alpha=0.5)


def test_maps_say_where_the_layer_lost_what_the_reference_has():
    x = jnp.zeros((12, 12, 3)).at[3:9, 3:9].set(1.0)
    lost = x.at[3:9, 6:9].set(0.0)  # the right half of the square is gone
    agreed = cladec.agreement(x, lost, sigma=0.5)
    assert agreed[5, 4] > 0.95 and agreed[5, 7] < 0.1 and agreed.shape == (12, 12)
    found = cladec.kept_by_layer(x, lost, x, sigma=0.5)
    assert found[5, 7] < -2.5 and found[5, 3] > -0.1
    both = cladec.kept_by_layer(x, lost, lost, sigma=0.5)
    np.testing.assert_allclose(both, 0, atol=1e-6)  # missing in both says nothing
