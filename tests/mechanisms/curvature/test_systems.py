import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protojax.mechanisms import curvature

X64 = pytest.mark.usefixtures("x64")
SIZE = 12


def solution(matrix, b, damping=0.0, tol=1e-6, steps=400):
    return curvature.solve(
        lambda v: matrix @ v, b, damping=damping, tol=tol, steps=steps
    )


jitted = jax.jit(solution, static_argnames="steps")


def solved(*args, **knobs):
    return jax.tree.map(np.asarray, jitted(*args, **knobs))


def right(size=SIZE, seed=1):
    return np.random.default_rng(seed).normal(size=size)


@X64
def test_peers_d5_the_solution_is_that_of_the_damped_matrix(symmetric):
    matrix, b = symmetric(np.geomspace(1e-3, 10, SIZE)), right()
    found = solved(matrix, b, 0.1, 1e-12)
    expected = np.linalg.solve(matrix + 0.1 * np.eye(SIZE), b)
    np.testing.assert_allclose(found.x, expected, rtol=1e-9)
    assert found.converged and found.residual <= 1e-12


@X64
def test_peers_c8_the_inverse_hessian_of_a_sum_of_sines():
    x = np.array([-0.3, -1.2, -2.0, -2.9])  # where -sin(x) is positive

    @jax.jit
    def inverse(x):
        product = curvature.hessian(lambda z: jnp.sum(jnp.sin(z)), x)
        return curvature.solve(product, jnp.ones(4), tol=1e-12)

    found = inverse(x)
    np.testing.assert_allclose(found.x, -1 / np.sin(x), rtol=1e-10)
    assert int(found.steps) == 4  # one for each eigenvalue


@X64
def test_trees_and_batches_of_systems_that_end_at_different_steps(symmetric):
    matrix = symmetric(np.geomspace(1, 100, 6))

    def matvec(tree):
        image = matrix @ jnp.concatenate([tree["a"].reshape(4), tree["b"]])
        return {"a": image[:4].reshape(2, 2), "b": image[4:]}

    @jax.jit
    @jax.vmap
    def each(b):
        tree = {"a": b[:4].reshape(2, 2), "b": b[4:]}
        return curvature.solve(matvec, tree, tol=1e-10)

    easy = np.linalg.eigh(matrix)[1][:, 0]
    bs = np.stack([right(6), easy, np.zeros(6)])
    found = jax.tree.map(np.asarray, each(bs))
    flat = np.concatenate([found.x["a"].reshape(3, 4), found.x["b"]], axis=1)
    np.testing.assert_allclose(flat.T, np.linalg.solve(matrix, bs.T), rtol=1e-8)
    assert found.converged.all()
    assert found.steps[0] >= 6 and found.steps.tolist()[1:] == [1, 0]


@X64
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    condition=st.floats(1, 1e4),
    tol=st.sampled_from([1e-2, 1e-5, 1e-9]),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
)
def test_the_residual_is_the_true_one(symmetric, seed, condition, tol, scale):
    matrix = symmetric(np.geomspace(1 / condition, 1, SIZE), seed)
    b = scale * right(seed=seed)
    found = solved(matrix, b, 0.0, tol)
    true = np.linalg.norm(b - matrix @ found.x) / np.linalg.norm(b)
    rounding = 4 * np.finfo(float).eps * condition  # of the product, theirs and ours
    assert found.residual == pytest.approx(true, rel=1e-6, abs=rounding)
    assert found.converged and true <= tol * (1 + 1e-6)


@X64
def test_derivatives_are_those_of_the_solution(symmetric):
    matrix, b, damping = symmetric(np.geomspace(1, 9, 4)), right(4), 0.5

    @jax.jit
    def slopes(*args):
        cubed = lambda *args: jnp.sum(solution(*args, 1e-13).x ** 3)
        return jax.grad(cubed, (0, 1, 2))(*args)

    x = np.linalg.solve(matrix + damping * np.eye(4), b)
    adjoint = np.linalg.solve(matrix + damping * np.eye(4), 3 * x**2)
    of_matrix, of_b, of_damping = slopes(matrix, b, damping)
    np.testing.assert_allclose(of_b, adjoint, rtol=1e-9)
    np.testing.assert_allclose(of_matrix, -np.outer(adjoint, x), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(of_damping, -adjoint @ x, rtol=1e-9)


# single precision


def test_small_right_hand_sides_do_not_pass_for_zero(symmetric):
    # in single precision, squares below 1e-38 are zero
    matrix, b = symmetric(np.linspace(1, 3, 40)), np.full(40, 1e-25, np.float32)
    found = solved(matrix, b)
    assert found.converged
    np.testing.assert_allclose(found.x, np.linalg.solve(matrix, b), rtol=1e-5)


def test_single_precision_restarts_from_the_true_residual(symmetric):
    # the recursion alone believes in less than there is, from a condition of 100 on
    matrix, b = symmetric(np.geomspace(1, 300, 40)), np.float32(right(40))
    found = solved(matrix, b, 0.0, 2e-5)
    left = np.float64(b) - np.float64(matrix) @ np.float64(found.x)
    true = np.linalg.norm(left) / np.linalg.norm(b)
    assert found.converged and true <= 2.2e-5  # the product rounds too


def test_fragility_9_8_a_singular_hessian_without_damping_raises():
    # fewer examples than parameters, and a gradient of an example outside
    x = np.random.default_rng(0).normal(size=(5, 40))
    loss = lambda w, x: 0.5 * (w @ x) ** 2
    matvec = jax.jit(curvature.mean_hessian(loss, jnp.zeros(40), np.float32(x)))
    ones = np.ones(40, np.float32)
    with pytest.raises(
        curvature.NotConverged, match="not positive definite.*`damping`"
    ):
        curvature.solve(matvec, ones)
    assert curvature.solve(matvec, ones, damping=0.01, tol=1e-4).converged
    inside = curvature.solve(matvec, matvec(ones), tol=1e-4)
    shortest = np.linalg.pinv(x) @ x @ ones
    np.testing.assert_allclose(inside.x, shortest, atol=1e-3)


NOT_SOLVED = {
    "negative": (np.geomspace(-1, -1e4, 40), {}, "along the direction of step"),
    "indefinite": (np.linspace(-1, 9, 40), {}, "not positive definite"),
    "too few steps": (np.geomspace(1, 1e4, 40), {"steps": 5}, r"after `steps` \(5\)"),
    "rounding": (np.geomspace(1, 100, 40), {"tol": 1e-12}, "rounding of float32"),
}


@pytest.mark.parametrize("name", NOT_SOLVED)
def test_what_is_not_solved_raises_eagerly_and_says_so_when_traced(name, symmetric):
    values, knobs, said = NOT_SOLVED[name]
    matrix, b = symmetric(values), np.float32(right(40))
    with pytest.raises(curvature.NotConverged, match=said):
        solution(matrix, b, **knobs)
    assert not solved(matrix, b, 0.0, knobs.pop("tol", 1e-6), **knobs).converged


def test_products_that_are_not_finite_raise_eagerly_and_show_when_traced(symmetric):
    matrix, b = jnp.nan * symmetric(np.ones(40)), np.float32(right(40))
    with pytest.raises(FloatingPointError, match="not finite at step 1"):
        solution(matrix, b)
    assert not solved(matrix, b).converged


def test_impossible_requests_are_named():
    eye = lambda v: v
    for knobs, said in (
        ({"damping": -1.0}, "`damping` is -1.0"),
        ({"damping": jnp.nan}, "`damping` is nan"),
        ({"tol": 0.0}, "`tol` is 0.0"),
        ({"steps": 0}, "`steps` is 0"),
    ):
        with pytest.raises(ValueError, match=said):
            curvature.solve(eye, jnp.ones(3), **knobs)
    with pytest.raises(ValueError, match="`b` has numbers that are not finite"):
        curvature.solve(eye, {"a": jnp.ones(3), "b": jnp.array([1.0, jnp.inf])})
    with pytest.raises(ValueError, match="`b` has 3 numbers of type int32"):
        curvature.solve(eye, jnp.arange(3))
    with pytest.raises(ValueError, match="`matvec` gives 2 numbers for 3: .*like `b`"):
        curvature.solve(lambda v: v[:2], jnp.ones(3))
