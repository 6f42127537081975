import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax.methods import metrics, objectives

WEIGHTS = jax.random.normal(jax.random.key(0), (5, 12))
TARGET = jax.random.uniform(jax.random.key(1), (3, 4))
X = jax.random.uniform(jax.random.key(2), (3, 4, 1))


def fn(x):
    return WEIGHTS[:3] @ jnp.tanh(x.ravel())


def explain(x):
    gradient = jax.grad(lambda z: jnp.sum(jax.nn.softplus(WEIGHTS @ z.ravel())))(x)
    size = jnp.abs(gradient)[..., 0]
    return size / jnp.sum(size)


def similarity(x):
    """Of the places of a 3 x 4 map to two prototypes."""
    return jnp.tanh(jnp.concatenate([x, 1 - x], -1) @ WEIGHTS[:2, :2])


UPPER = jnp.zeros((3, 4), bool).at[0].set(True)
MIDDLE = jnp.zeros((3, 4), bool).at[:2, 1:3].set(True)

BUILT = {
    "linear": lambda: objectives.linear(explain, TARGET),
    "top_k": lambda: objectives.top_k(explain, explain(X), k=3),
    "mass_center": lambda: objectives.mass_center(explain, jnp.array([0.6, -0.8])),
    "center_distance": lambda: objectives.center_distance(explain, jnp.ones(2)),
    "target_map": lambda: objectives.target_map(explain, TARGET),
    "logit": lambda: objectives.logit(fn, 1),
    "cross_entropy": lambda: objectives.cross_entropy(fn, 1),
    "prototype_moved": lambda: objectives.prototype_moved(
        similarity, prototype=1, target=UPPER, source=MIDDLE
    ),
    "prototype_absent": lambda: objectives.prototype_absent(similarity, prototype=1),
}


@pytest.mark.parametrize("name", BUILT)
def test_a_gradient_step_raises_the_objective(name):
    objective = BUILT[name]()

    @jax.jit
    @jax.vmap
    def step(x):
        value, gradient = jax.value_and_grad(objective)(x)
        length = jnp.sqrt(jnp.sum(gradient**2))
        return value, objective(x + 1e-2 * gradient / length)

    before, after = step(jnp.stack([X, 1 - X]))
    assert (after > before).all()


def test_values_are_those_of_the_definitions():
    saliency = explain(X)
    rows, columns = np.indices((3, 4))
    center = [float(jnp.sum(saliency * axis)) for axis in (rows, columns)]
    top = np.sort(np.ravel(saliency))[-3:].sum()
    logits = np.asarray(fn(X), np.float64)
    similar = np.asarray(similarity(X), np.float64)[..., 1]
    expected = {
        "linear": np.sum(np.asarray(TARGET) * np.asarray(saliency)),
        "top_k": -top,
        "mass_center": 0.6 * center[0] - 0.8 * center[1],
        "center_distance": (center[0] - 1) ** 2 + (center[1] - 1) ** 2,
        "target_map": -np.sum((np.asarray(saliency) - np.asarray(TARGET)) ** 2),
        "logit": logits[1],
        "cross_entropy": np.log(np.sum(np.exp(logits))) - logits[1],
        # four target cells; of the source's four, two are in the target
        "prototype_moved": similar[0].mean() - similar[1, 1:3].sum() / 4,
        "prototype_absent": -similar.max(),
    }
    for name, value in expected.items():
        assert float(BUILT[name]()(X)) == pytest.approx(value, rel=1e-5), name


def test_the_map_before_may_be_of_integers_and_not_of_nan():
    """Minus one is 255 of eight bits: that was climbed the other way."""
    before = jnp.asarray(255 * explain(X), jnp.uint8)
    of = lambda a: float(objectives.top_k(explain, a, k=3)(X))
    assert of(before) == of(before.astype(float)) < 0
    assert np.isnan(of(explain(X).at[0, 0].set(jnp.nan)))


def test_the_distance_from_the_own_center_has_no_gradient_in_float32():
    center = metrics.center_of_mass(explain(X))  # rounded otherwise than in the jit
    objective = objectives.center_distance(explain, center)
    assert not np.asarray(jax.jit(jax.grad(objective))(X)).any()


def test_the_label_filter_is_minus_infinity_where_the_label_changed():
    objective = objectives.label_kept(jnp.sum, fn, X)
    images = jnp.stack([X, 1 - X, X**2, -X])
    values = jax.jit(jax.vmap(objective))(images)
    kept = np.array([fn(x).argmax() == fn(X).argmax() for x in images])
    assert kept.any()
    assert not kept.all()
    np.testing.assert_array_equal(np.isfinite(values), kept)
    np.testing.assert_allclose(values[0], jnp.sum(X), rtol=1e-6)


def test_the_margin_is_above_zero_where_the_class_is_the_label():
    logits = np.asarray(fn(X))
    ahead = np.array([float(objectives.margin(fn, y)(X)) for y in range(len(logits))])
    best, runner_up = np.sort(logits)[::-1][:2]
    np.testing.assert_allclose(ahead[logits.argmax()], best - runner_up, rtol=1e-6)
    assert np.flatnonzero(ahead > 0).tolist() == [logits.argmax()]


def test_bad_shapes_and_classes_are_named():
    with pytest.raises(ValueError, match="`k` is 13 but the map has 12 entries"):
        objectives.top_k(explain, explain(X), k=13)
    for objective in (
        objectives.linear(explain, TARGET.T),
        objectives.target_map(explain, TARGET.T),
    ):
        with pytest.raises(AssertionError, match="shape"):
            objective(X)
    with pytest.raises(AssertionError, match="shape"):
        objectives.mass_center(explain, jnp.ones(3))
    with pytest.raises(ValueError, match="`y` is 3 but there are 3 classes"):
        objectives.logit(fn, 3)(X)
    with pytest.raises(ValueError, match="`y` is -1"):
        objectives.cross_entropy(fn, -1)(X)


def test_prototypes_and_regions_that_do_not_fit_are_named():
    moved = functools.partial(
        objectives.prototype_moved, similarity, prototype=0, target=UPPER, source=MIDDLE
    )
    with pytest.raises(ValueError, match="`target` has no cell"):
        moved(target=jnp.zeros((3, 4), bool))
    with pytest.raises(ValueError, match="`source` has no cell"):
        moved(source=jnp.zeros((3, 4), bool))
    grid = r"`source` has \[4, 4\] cells and the map of similarities \[3, 4\]"
    with pytest.raises(ValueError, match=grid):
        moved(source=jnp.ones((4, 4), bool))(X)
    for built in (
        moved(prototype=2),
        objectives.prototype_absent(similarity, prototype=2),
    ):
        with pytest.raises(ValueError, match="`prototype` is 2 but there are 2"):
            built(X)
    with pytest.raises(ValueError, match="`prototype` is -1"):
        moved(prototype=-1)(X)
    traced = jax.jit(lambda j: objectives.prototype_absent(similarity, prototype=j)(X))
    assert np.isnan(traced(2)) and np.isnan(traced(-1)) and np.isfinite(traced(1))
    empty = jax.jit(lambda region: moved(target=region)(X))
    assert np.isnan(empty(jnp.zeros((3, 4), bool)))  # said by the number, never robust
