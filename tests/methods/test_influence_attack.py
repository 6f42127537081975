"""The attack on influence functions, by its formulas and against the authors' code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from protojax import attacks, influence
from protojax.mechanisms import ascent

RADIUS = 4 / 255


def test_fragility_5_5_the_relative_change_of_a_neurons_gradient():
    """(w^T d) g''/g' + d_i / x_i; the paper has the first term alone."""
    rng = np.random.default_rng(0)
    w, x, change = rng.normal(size=(3, 6))
    s = scipy.special.expit(w @ x)

    def along(direction, x):
        loss = lambda w, example: (
            example["label"] - jax.nn.sigmoid(w @ example["image"])
        )
        return influence.suppressed(loss, jnp.float32(w), direction, 0.0)(x)

    @jax.jit
    def both(x):
        each = jax.vmap(along, (0, None))
        return jax.jvp(lambda z: each(jnp.eye(6), z), (x,), (jnp.float32(change),))

    value, moved = map(np.asarray, both(jnp.float32(x)))
    np.testing.assert_allclose(value, s * (1 - s) * x, rtol=1e-5)
    expected = (w @ change) * (1 - 2 * s) + change / x
    np.testing.assert_allclose(moved / value, expected, rtol=1e-4)


@pytest.fixture(scope="module")
def problem():
    """Images, features with a kink, a last layer, and influences through it."""
    rng = np.random.default_rng(0)
    weight = jnp.float32(rng.normal(size=(48, 10)) / 2)
    features = lambda x: jax.nn.relu((x.ravel() - 0.5) @ weight)
    images = jnp.float32(rng.uniform(0.2, 0.8, size=(40, 4, 4, 3)))
    labels = jnp.int32(rng.integers(2, size=40))
    head = {"kernel": jnp.float32(rng.normal(size=(10, 2))), "bias": jnp.zeros(2)}
    train = {"features": jax.jit(jax.vmap(features))(images), "label": labels}
    pairs = influence.all_eigenpairs(
        influence.softmax_hessian(head, train["features"]), head
    )
    inverse = influence.projected(pairs, damping=0.01)
    fn = lambda x: features(x) @ head["kernel"] + head["bias"]
    x = jnp.float32(rng.uniform(0.2, 0.8, size=(4, 4, 3)))
    return features, head, train, images, inverse, fn, x


def values_at(problem, z, y):
    features, head, train, _, inverse, _, _ = problem
    test = {"features": features(z), "label": y}
    return influence.of_training(
        influence.softmax_loss, head, train, test, inverse
    ).values


def of_image(features):
    def loss(head, example):
        seen = {"features": features(example["image"]), "label": example["label"]}
        return influence.softmax_loss(head, seen)

    return loss


def test_fragility_2_6_the_gradient_of_an_influence_through_a_softmax_layer(problem):
    """Two classes as a logistic unit of the differences, the paper's p(1-p) formula."""
    features, head, train, _, inverse, fn, x = problem
    y, chosen = 1, jnp.array([3])
    found = influence.direction(influence.softmax_loss, head, train, chosen, inverse)
    objective = influence.suppressed(of_image(features), head, found.x, y)
    p = scipy.special.expit(np.diff(fn(x))[0])
    theta = np.diff(head["kernel"], axis=1)[:, 0]
    s = np.append(np.diff(found.x["kernel"], axis=1)[:, 0], np.diff(found.x["bias"]))
    phi = np.append(features(x), 1.0)
    by_features = p * (1 - p) * (phi @ s) * theta + (p - y) * s[:-1]
    pulled = jax.jit(lambda x, v: jax.vjp(features, x)[1](v)[0])
    expected = -pulled(x, jnp.float32(by_features))
    np.testing.assert_allclose(
        jax.jit(jax.grad(objective))(x), expected, atol=1e-5 * np.abs(expected).max()
    )


def test_one_step_is_the_papers_formula_and_keeps_the_label(problem):
    features, head, train, images, inverse, fn, x = problem
    y = jnp.argmax(fn(x))
    before = values_at(problem, x, y)
    _, top = jax.lax.top_k(before, 3)
    gradient = jax.jit(jax.grad(lambda z: jnp.sum(values_at(problem, z, y)[top])))(x)
    expected = jnp.clip(x - RADIUS * jnp.sign(gradient), 0, 1)

    @jax.jit
    def attacked(x, radius):
        examples = {"image": images, "label": train["label"]}
        return influence.demote(
            fn, of_image(features), head, examples, x, inverse, radius=radius
        )

    found = attacked(x, RADIUS)
    np.testing.assert_allclose(found.x, expected, atol=1e-6)
    assert jnp.argmax(fn(found.x)) == y and found.step == 1
    after = values_at(problem, found.x, y)
    assert jnp.sum(after[top]) < jnp.sum(before[top])
    np.testing.assert_allclose(found.value, -jnp.sum(after[top]), rtol=1e-4)
    # The influence vector is an explanation like any other, and can be attacked as one.
    as_map = jax.jit(
        lambda x: attacks.top_k(
            fn,
            lambda z: values_at(problem, z, y),
            x,
            k=3,
            radius=RADIUS,
            step_size=RADIUS,
            steps=1,
        )
    )(x)
    np.testing.assert_allclose(as_map.x, expected, atol=1e-6)


def test_a_flipped_label_is_no_success(problem):
    """Another network, whose class ends halfway on the way to the attack's image."""
    features, head, train, images, inverse, fn, x = problem
    examples = {"image": images, "label": train["label"]}

    @jax.jit
    def attacked(along, threshold):
        def narrow(z):
            first = jnp.sum(along * z) - threshold
            return jnp.stack([first, jnp.zeros(())])

        return influence.demote(
            narrow, of_image(features), head, examples, x, inverse, radius=RADIUS
        )

    free = attacked(jnp.zeros_like(x), -1.0)
    assert free.step == 1
    away = x - free.x
    there = float(jnp.sum(away * x))
    kept = attacked(away, there - 0.5 * float(jnp.sum(away**2)))
    assert kept.step == 0
    np.testing.assert_array_equal(kept.x, x)


def test_a_system_that_was_not_solved_is_stalled_where_it_is_traced(problem):
    features, head, train, images, _, fn, x = problem
    examples = {"image": images, "label": train["label"]}
    pairs = influence.all_eigenpairs(
        influence.softmax_hessian(head, train["features"]), head
    )

    @jax.jit
    @jax.vmap
    def attacked(damping):
        inverse = influence.projected(pairs, damping=damping)
        return influence.demote(
            fn, of_image(features), head, examples, x, inverse, radius=RADIUS
        )

    assert attacked(jnp.array([0.0, 0.01])).stalled.tolist() == [True, False]


def test_the_authors_walk_over_features(problem):
    """Three signed steps of the features, the gradient taken anew at each; then one of
    the pixels, by the Jacobian of the features. In NumPy, as their code has it."""
    features, head, train, _, inverse, fn, x = problem
    y, top = 1, jnp.array([3, 17, 8])
    each = jax.lax.map(
        lambda i: (
            influence.direction(influence.softmax_loss, head, train, i[None], inverse).x
        ),
        top,
    )
    theta = np.diff(head["kernel"], axis=1)[:, 0]
    offset = float(np.diff(head["bias"])[0])
    start = phi = np.asarray(features(x), np.float64)
    for j in range(3):
        s = np.diff(each["kernel"][j], axis=1)[:, 0]
        rest = float(np.diff(each["bias"][j])[0])
        p = scipy.special.expit(phi @ theta + offset)
        phi = phi - 0.01 * np.sign(p * (1 - p) * (phi @ s + rest) * theta + (p - y) * s)
    gradient = jax.vjp(features, x)[1](jnp.float32(phi - start))[0]
    expected = jnp.clip(x + RADIUS * jnp.sign(gradient), 0, 1)
    objective = influence.feature_steps(
        features, influence.softmax_loss, head, each, x, y
    )
    found = attacks.pgd(objective, x, radius=RADIUS, step_size=RADIUS, steps=1)
    np.testing.assert_allclose(found.x, expected, atol=1e-6)


def test_bad_attacks_are_named(problem):
    features, head, train, images, inverse, fn, x = problem
    examples = {"image": images, "label": train["label"]}
    demote = functools.partial(influence.demote, fn, of_image(features), head, examples)
    with pytest.raises(ValueError, match="`k` is 41: choose 1 to 40"):
        demote(x, inverse, radius=RADIUS, k=41)
    with pytest.raises(ValueError, match="`x` has NaN pixels|loss that is not finite"):
        demote(x.at[0, 0, 0].set(jnp.nan), inverse, radius=RADIUS)
    blind = lambda head, example: head["bias"][1] * example["label"]
    with pytest.raises(ascent.Stalled):
        influence.demote(fn, blind, head, examples, x, inverse, radius=RADIUS)
