"""Influences through the last layer, and through an inverse that is approximate."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from protojax import activations, curvature, influence, models

KEY = jax.random.key(0)


def test_the_sign_is_positive_for_what_helps():
    """A copy of the test example helps, the same with the other label harms."""
    head, train, _ = head_problem(classes=2)
    features, labels = train["features"], train["label"]
    labels = labels.at[7].set(1 - labels[6])
    features = features.at[7].set(features[6])
    test = {"features": features[6], "label": labels[6]}
    found = exactly(head, {"features": features, "label": labels}, test)
    assert found.values[6] > 0 > found.values[7]


@jax.jit
def pairs_of(head, features):
    return influence.all_eigenpairs(influence.softmax_hessian(head, features), head)


def exact(head, features, damping):
    return influence.projected(pairs_of(head, features), damping=damping)


@jax.jit
def exactly(head, train, test, damping=0.05):
    """Influences through the last layer, by all eigenpairs of its Hessian."""
    inverse = exact(head, train["features"], damping)
    return influence.of_training(influence.softmax_loss, head, train, test, inverse)


def head_problem(count=25, width=6, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    drawn = lambda *shape: jnp.float32(rng.normal(size=shape))
    head = {"kernel": drawn(width, classes), "bias": jnp.ones(classes)}
    train = {"features": drawn(count, width)}
    train["label"] = jnp.int32(rng.integers(classes, size=count))
    return head, train, {"features": drawn(width), "label": jnp.int32(1)}


@pytest.mark.parametrize(("bias", "batch_size"), [(True, 4), (True, 64), (False, 4)])
def test_the_hessian_of_the_last_layer_is_the_dense_one(bias, batch_size):
    head, train, _ = head_problem()
    weights = jnp.arange(25.0) % 3
    if not bias:
        del head["bias"]
    flat, unravel = jax.flatten_util.ravel_pytree(head)

    def mean(flat):
        each = jax.vmap(influence.softmax_loss, (None, 0))(unravel(flat), train)
        return jnp.mean(weights * each)

    expected = jax.jit(jax.hessian(mean))(flat)
    closed = functools.partial(influence.softmax_hessian, batch_size=batch_size)
    found = jax.jit(closed)(head, train["features"], weights=weights)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_two_classes_are_a_logistic_unit_at_half_the_damping():
    """The difference of the two weight vectors is the unit's; each has half of it."""
    head, train, test = head_problem(classes=2)
    found = exactly(head, train, test, 0.1)
    w = np.append(head["kernel"][:, 1] - head["kernel"][:, 0], np.diff(head["bias"]))
    phi, phi_test = (
        np.concatenate([f, np.ones((*f.shape[:-1], 1))], axis=-1)
        for f in (train["features"], test["features"])
    )
    p, p_test = (scipy.special.expit(f @ w) for f in (phi, phi_test))
    hessian = (phi.T * (p * (1 - p))) @ phi / 25 + 0.05 * np.eye(7)
    each = (p - train["label"])[:, None] * phi
    expected = each @ np.linalg.solve(hessian, (p_test - 1) * phi_test)
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-5)


def test_exact_last_layer_conjugate_gradients_on_the_network_and_float64_agree():
    net = models.ConvNet(classes=3, widths=(8,))
    images = jax.random.uniform(KEY, (12, 8, 8, 3))
    train = {"image": images, "label": jnp.arange(12) % 3}
    test = {"image": jax.random.uniform(jax.random.key(1), (8, 8, 3)), "label": 2}
    weights = jax.jit(net.init)(KEY, images[0])
    loss, part = influence.restrict(
        influence.cross_entropy(net.apply), weights, lambda name: "head" in name
    )
    assert list(part) == ["params/head/bias", "params/head/kernel"]
    matvec = curvature.mean_hessian(loss, part, train)
    solve = functools.partial(curvature.solve, matvec, damping=0.01, steps=60)
    by_gradients = functools.partial(influence.of_training, loss, part, inverse=solve)
    found = jax.jit(by_gradients)(train, test)

    @jax.jit
    @jax.vmap
    def features(x):
        _, layers = activations.record(lambda z: net.apply(weights, z), ["stage1"])(x)
        return jnp.mean(layers["stage1"], axis=(0, 1))

    *before, last = features(jnp.concatenate([images, test["image"][None]]))
    seen = {"features": jnp.stack(before), "label": train["label"]}
    head = weights["params"]["head"]
    same = exactly(head, seen, {"features": last, "label": 2}, 0.01)
    dense = dense_influences(head, seen, last, 2, 0.01)
    # Residuals of 1e-6 times a condition of about 100 in single precision.
    scale = np.abs(dense).max()
    np.testing.assert_allclose(found.values, dense, atol=2e-4 * scale)
    np.testing.assert_allclose(same.values, dense, atol=2e-4 * scale)


def dense_influences(head, train, features, label, damping):
    """By the Hessian that JAX forms, in double precision."""
    with jax.enable_x64(True):
        kernel, bias, phi, last = (
            np.asarray(leaf, np.float64)
            for leaf in (head["kernel"], head["bias"], train["features"], features)
        )
        flat, classes = np.append(kernel.ravel(), bias), len(bias)

        def losses(flat, phi, labels):
            logits = phi @ flat[:-classes].reshape(kernel.shape) + flat[None, -classes:]
            return (
                jax.nn.logsumexp(logits, axis=1) - logits[np.arange(len(phi)), labels]
            )

        @jax.jit
        def derivatives(flat):
            each = functools.partial(losses, phi=phi, labels=train["label"])
            hessian = jax.hessian(lambda flat: jnp.mean(each(flat)))(flat)
            at_test = jax.grad(lambda f: losses(f, last[None], np.array([label]))[0])
            return hessian, at_test(flat), jax.jacobian(each)(flat)

        hessian, slope, rows = map(np.asarray, derivatives(flat))
        return rows @ np.linalg.solve(hessian + damping * np.eye(len(flat)), slope)


@pytest.mark.parametrize("batch_size", [3, 64])
def test_the_closed_form_is_what_products_give(batch_size):
    head, train, _ = head_problem()
    hessian = influence.softmax_hessian(head, train["features"])
    flat, unravel = jax.flatten_util.ravel_pytree(head)
    v = jnp.sin(1.0 + jnp.arange(flat.size))
    product = curvature.mean_hessian(
        influence.softmax_loss, head, train, batch_size=batch_size
    )
    found, _ = jax.flatten_util.ravel_pytree(jax.jit(product)(unravel(v)))
    np.testing.assert_allclose(found, hessian @ v, atol=1e-6)


@pytest.mark.slow
def test_a_sampled_hessian_is_the_hessian_on_average():
    head, train, _ = head_problem()
    product = influence.sampled_hessian(influence.softmax_loss, head, train, size=5)
    flat, unravel = jax.flatten_util.ravel_pytree(head)
    v = jnp.cos(jnp.arange(flat.size))

    @jax.jit
    def draws(keys):
        each = lambda key: jax.flatten_util.ravel_pytree(product(unravel(v), key=key))
        return jax.vmap(lambda key: each(key)[0])(keys)

    drawn = np.asarray(draws(jax.random.split(KEY, 4000)))
    expected = influence.softmax_hessian(head, train["features"]) @ v
    error = np.abs(drawn.mean(axis=0) - expected) / (drawn.std(axis=0) / 4000**0.5)
    # Of 21 normal deviates one is above 4.5 in 7 of 100,000 keys; this key is fixed.
    assert error.max() < 4.5


exactly_of_each = jax.jit(jax.vmap(exactly, (None, None, 0)))


def test_under_jit_and_vmap_influences_are_the_same():
    head, train, _ = head_problem()
    together = exactly_of_each(head, train, train)
    first = jax.tree.map(lambda leaf: leaf[0], train)
    inverse = exact(head, train["features"], 0.05)
    alone = influence.of_training(influence.softmax_loss, head, train, first, inverse)
    np.testing.assert_allclose(together.values[0], alone.values, rtol=1e-5, atol=1e-6)
    assert np.all(together.converged) and alone.converged


def test_fragility_9_8_self_influence_is_never_negative():
    head, train, _ = head_problem()
    both = exactly_of_each(head, train, train).values
    assert np.all(np.diagonal(both) > 0)
    np.testing.assert_allclose(both, both.T, atol=1e-4 * np.abs(both).max())


def test_chosen_examples_share_one_direction_and_their_influences_add_up():
    head, train, test = head_problem()
    inverse = exact(head, train["features"], 0.05)
    values = exactly(head, train, test).values
    chosen = jnp.array([3, 11, 4])
    loss = influence.softmax_loss
    of = lambda chosen: influence.direction(loss, head, train, chosen, inverse)
    slope = influence.slope(loss, head, test, of(chosen).x)
    np.testing.assert_allclose(slope, jnp.sum(values[chosen]), rtol=1e-4)
    with pytest.raises(ValueError, match=r"`chosen` is \[25\]: choose from 0 to 24"):
        of(jnp.array([25]))
    traced = jax.jit(of)
    solved = [bool(traced(jnp.array([0, i])).converged) for i in (24, 25, -1)]
    assert solved == [True, False, False]


def test_much_damping_leaves_the_products_of_gradients():
    """Damping times (H + damping)^-1 goes to one: the effect of one gradient step."""
    head, train, test = head_problem()
    gradient = jax.grad(influence.softmax_loss)
    flat = lambda e: jax.flatten_util.ravel_pytree(gradient(head, e))[0]
    each, at_test = jax.jit(jax.vmap(flat))(train), flat(test)
    matrix = influence.softmax_hessian(head, train["features"])
    top = np.linalg.norm(matrix, 2) * np.linalg.norm(at_test)
    longest, errors = np.linalg.norm(each, axis=1).max(), []
    for damping in (1.0, 10.0, 1e3):
        found = exactly(head, train, test, damping)
        errors.append(float(jnp.max(jnp.abs(damping * found.values - each @ at_test))))
        # |damping (H + damping)^-1 - 1| is at most the top eigenvalue over damping.
        assert errors[-1] <= top * longest / damping + 1e-5
    assert errors[0] > 10 * errors[2]


def spectrum(count=100):
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(count, count)))[0]
    values = 10 ** np.linspace(-2, 2, count)
    return np.float32((basis * values) @ basis.T), basis, values


def test_peers_d3_ten_pairs_of_lanczos_give_the_projected_quadratic_form():
    matrix, basis, values = spectrum()
    pairs = curvature.top_eigenpairs(
        lambda v: matrix @ v, jnp.zeros(100), key=KEY, num=10, steps=50
    )
    np.testing.assert_allclose(pairs.values, values[::-1][:10], rtol=1e-4)
    b = np.float32(np.random.default_rng(1).normal(size=100))
    found = influence.projected(pairs)(b)
    inside = basis.T @ b
    expected = np.sum(inside[-10:] ** 2 / values[-10:])
    assert float(b @ found.x) == pytest.approx(expected, rel=1e-3)
    outside = np.linalg.norm(inside[:-10]) / np.linalg.norm(b)
    assert float(found.residual) == pytest.approx(outside, rel=1e-3)
    assert found.converged


def test_peers_d3_all_pairs_are_the_inverse():
    matrix, basis, values = spectrum(40)
    b = np.float32(np.random.default_rng(1).normal(size=40))
    found = influence.projected(
        influence.all_eigenpairs(jnp.asarray(matrix), jnp.zeros(40)), damping=0.5
    )(b)
    expected = basis @ (basis.T @ b / (values + 0.5))
    np.testing.assert_allclose(found.x, expected, atol=2e-5)
    assert found.residual < 1e-5


def test_lanczos_on_a_network_gives_the_influences_that_its_span_holds():
    """Four examples, so of rank 4 over 12 parameters: four pairs have all of the
    Gauss-Newton operator, and no training gradient has a part beside their span."""
    rng = np.random.default_rng(0)
    drawn = lambda *shape: jnp.float32(rng.normal(size=shape))
    params, train = {"in": drawn(3, 4)}, {"x": drawn(4, 4), "y": drawn(4)}
    predict = lambda p, e: jnp.sum(jnp.tanh(p["in"] @ e["x"]))
    loss = lambda out, e: 0.5 * (out - e["y"]) ** 2
    matvec = curvature.mean_gauss_newton(predict, loss, params, train)
    test = {"x": train["x"][0] + 0.1, "y": jnp.float32(0.0)}

    @jax.jit
    def both():
        pairs = curvature.top_eigenpairs(matvec, params, key=KEY, num=4, steps=12)
        solve = functools.partial(curvature.solve, matvec, damping=0.1)
        return [
            influence.of_training(
                lambda p, e: loss(predict(p, e), e), params, train, test, inverse
            )
            for inverse in (influence.projected(pairs, damping=0.1), solve)
        ]

    few, whole = both()
    assert few.converged and whole.converged
    scale = float(jnp.abs(whole.values).max())
    np.testing.assert_allclose(few.values, whole.values, atol=1e-4 * scale)


def test_peers_d4_lissa_converges_to_the_solution():
    head, train, test = head_problem()
    matvec = curvature.mean_hessian(influence.softmax_loss, head, train)
    # The largest eigenvalue is at most half the largest squared length of (1, phi).
    longest = float(jnp.max(jnp.sum(train["features"] ** 2, axis=1))) + 1
    inverse = influence.lissa(
        matvec,
        lambda v, **_: matvec(v),
        key=KEY,
        scale=longest / 2,
        damping=0.05,
        steps=3000,
        tol=1e-4,
    )
    found = jax.jit(
        lambda: influence.of_training(
            influence.softmax_loss, head, train, test, inverse
        )
    )()
    assert found.converged
    expected = exactly(head, train, test)
    scale = float(jnp.abs(expected.values).max())
    np.testing.assert_allclose(found.values, expected.values, atol=1e-3 * scale)


@pytest.mark.slow
def test_peers_d4_lissa_on_samples_is_noisy_and_says_by_how_much():
    head, train, test = head_problem()
    matvec = curvature.mean_hessian(influence.softmax_loss, head, train)
    sampled = influence.sampled_hessian(influence.softmax_loss, head, train, size=5)
    gradient = jax.grad(influence.softmax_loss)(head, test)
    flat = lambda tree: jax.flatten_util.ravel_pytree(tree)[0]
    solution = np.asarray(flat(exact(head, train["features"], 0.05)(gradient).x))

    @jax.jit
    @jax.vmap
    def walk(key):
        inverse = influence.lissa(
            matvec, sampled, key=key, scale=40.0, damping=0.05, steps=3000
        )
        found = inverse(gradient)
        return flat(found.x), found.residual

    ends, residuals = map(np.asarray, walk(jax.random.split(KEY, 32)))
    errors = np.linalg.norm(ends - solution, axis=1) / np.linalg.norm(solution)
    # Independent errors average out: by 32 ** 0.5 if there were no bias.
    mean = np.linalg.norm(ends.mean(axis=0) - solution) / np.linalg.norm(solution)
    assert 0.01 < errors.mean() < 0.3
    assert mean < errors.mean() / 2
    assert np.all(residuals > 1e-3) and np.all(residuals < 0.3)


def test_fragility_9_8_a_singular_hessian_without_damping_says_so():
    """Two classes always are: the same weights more for both change nothing."""
    head, train, test = head_problem(classes=2)
    inverse = exact(head, train["features"], 0)
    with pytest.raises(curvature.NotConverged, match="lowest damped eigenvalue is"):
        influence.of_training(influence.softmax_loss, head, train, test, inverse)
    assert not exactly(head, train, test, 0.0).converged
    assert exactly(head, train, test, 1e-3).converged


def test_eigenpairs_that_are_none_are_not_used():
    pairs = influence.all_eigenpairs(jnp.diag(jnp.array([1.0, 3.0])), jnp.zeros(2))
    wrong = pairs._replace(residuals=pairs.residuals.at[1].set(0.5))
    with pytest.raises(curvature.NotConverged, match="eigenpair 1, of eigenvalue 1,"):
        influence.projected(wrong)(jnp.ones(2))
    indefinite = pairs._replace(values=jnp.array([3.0, -1.0]))
    with pytest.raises(curvature.NotConverged, match="singular or indefinite"):
        influence.projected(indefinite, damping=0.5)(jnp.ones(2))
    assert influence.projected(indefinite, damping=2.0)(jnp.ones(2)).converged


def test_what_has_no_loss_is_named():
    head, train, test = head_problem()
    inverse = exact(head, train["features"], 0.05)
    of_training = functools.partial(
        influence.of_training, influence.softmax_loss, head, inverse=inverse
    )
    wrong = {**train, "label": train["label"].at[jnp.array([2, 9])].set(3)}
    with pytest.raises(
        ValueError, match=r"`train` has a loss that is not finite of examples \[2, 9\]"
    ):
        of_training(wrong, test)
    broken = {**train, "features": train["features"].at[4, 1].set(jnp.nan)}
    with pytest.raises(ValueError, match=r"of examples \[4\]: are there NaN"):
        of_training(broken, test)
    with pytest.raises(ValueError, match="`test` has a loss that is not finite: are"):
        of_training(train, {**test, "label": -1})
    with pytest.raises(ValueError, match="`y` is 3 but there are 3 classes"):
        influence.softmax_loss(head, {**test, "label": 3})
    with pytest.raises(ValueError, match="`matrix` has numbers that are not finite"):
        influence.all_eigenpairs(jnp.full((2, 2), jnp.nan), jnp.zeros(2))


def test_what_has_no_loss_has_no_influence_where_it_is_traced():
    """The slope of a loss that knows no such class is zero: that is no influence."""
    head, train, test = head_problem()
    wrong = {**train, "label": train["label"].at[jnp.array([2, 9])].set(3)}
    found = exactly(head, wrong, test)
    assert np.flatnonzero(np.isnan(found.values)).tolist() == [2, 9]
    assert found.converged
    found = exactly(head, train, {**test, "label": jnp.int32(3)})
    assert np.all(np.isnan(found.values)) and not found.converged
    inverse = exact(head, train["features"], 0.05)
    with pytest.raises(ValueError, match="`b` has numbers that are not finite: look"):
        inverse(jax.tree.map(lambda leaf: leaf * jnp.nan, head))
