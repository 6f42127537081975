"""What protojax answers to the cases of second derivatives and of influences."""

import functools

import jax
import jax.numpy as jnp

from protojax import attributions, curvature, influence
from protojax.conformance import JAX


def of_vector(score, x):
    """A function of a case, of a vector, and that vector."""
    return functools.partial(score, JAX), jnp.asarray(x, float)


def matrix(product, x):
    """The rows of a symmetric operator, or the columns of any."""
    return jax.lax.map(product, jnp.eye(len(x), dtype=x.dtype))


def input_hessian(score, x):
    score, x = of_vector(score, x)
    return jax.jit(lambda x: matrix(curvature.hessian(score, x), x))(x)


@functools.cache
def leading(score, x):
    """All eigenpairs of the input Hessian, and the gradient."""
    score, x = of_vector(score, x)

    @jax.jit
    def both(x):
        product, key = curvature.hessian(score, x), jax.random.key(0)
        knobs = {"num": len(x), "steps": len(x)}
        pairs = curvature.top_eigenpairs(product, x, key=key, **knobs)
        return pairs, jax.grad(score)(x)

    return both(x)


def eigenvector_angle(score, x):
    pairs, gradient = leading(score, tuple(x))
    return abs(pairs.vectors[0] @ gradient) / jnp.linalg.norm(gradient)


def cross_entropy_eigenvalues(fn, x):
    fn, x = of_vector(fn, x)
    run = functools.partial(curvature.cross_entropy_eigenpairs, fn)
    return jax.jit(run)(x).values


def map_jacobian(score, x):
    score, x = of_vector(score, x)

    def explain(x):
        gradient = attributions.gradient(
            lambda z: score(z.ravel()), x.reshape(-1, 1, 1)
        )
        return attributions.heatmap(gradient).ravel()

    run = lambda x: matrix(curvature.jacobian(explain, x).forward, x).T
    return jax.jit(run)(x)


def inverse_product(score, x, b):
    score, x = of_vector(score, x)
    run = lambda x: curvature.solve(curvature.hessian(score, x), b, tol=1e-12).x
    return jax.jit(run)(x)


def projected_inverse(matrix, b, k):
    @jax.jit
    def run(matrix, b):
        pairs = influence.all_eigenpairs(matrix, b)
        few = jax.tree.map(lambda leaf: leaf[:k], pairs)
        return influence.projected(few)(b).x

    return run(jnp.asarray(matrix), jnp.asarray(b))


def losses(loss, params, inputs, targets):
    """A loss of a case as one of parameters and an example, and what it is given."""
    loss = functools.partial(loss, JAX)
    train = {"image": jnp.asarray(inputs), "label": jnp.asarray(targets)}
    return (
        lambda w, example: loss(w, example["image"], example["label"]),
        jnp.asarray(params),
        train,
    )


def parameter_hessian(loss, params, inputs, targets):
    loss, params, train = losses(loss, params, inputs, targets)

    @jax.jit
    def rows(params):
        product = curvature.mean_hessian(loss, params, train, batch_size=3)
        flat = lambda v: product(v.reshape(params.shape)).ravel()
        return matrix(flat, params.ravel())

    return rows(params)


def inverse(loss, params, train, damping=0.0):
    matvec = curvature.mean_hessian(loss, params, train)
    knobs = {"damping": damping, "steps": 20, "tol": 1e-12}
    return functools.partial(curvature.solve, matvec, **knobs)


def influences(loss, params, inputs, targets, x, y, damping):
    loss, params, train = losses(loss, params, inputs, targets)
    test = {"image": jnp.asarray(x), "label": y}

    @jax.jit
    def run(params):
        solve = inverse(loss, params, train, damping)
        return influence.of_training(loss, params, train, test, solve).values

    return run(params)


def influence_slope(loss, params, inputs, targets, index, x, y):
    loss, params, train = losses(loss, params, inputs, targets)

    @jax.jit
    def run(x):
        solve = inverse(loss, params, train)
        found = influence.direction(loss, params, train, jnp.array([index]), solve)
        return -jax.grad(influence.suppressed(loss, params, found.x, y))(x)

    return run(jnp.asarray(x))


OURS_OF_CURVATURE = {
    "input_hessian": input_hessian,
    "input_eigenvalues": lambda score, x: leading(score, tuple(x))[0].values,
    "eigenvector_angle": eigenvector_angle,
    "cross_entropy_eigenvalues": cross_entropy_eigenvalues,
    "map_jacobian": map_jacobian,
    "inverse_product": inverse_product,
    "projected_inverse": projected_inverse,
    "parameter_hessian": parameter_hessian,
    "influences": influences,
    "influence_slope": influence_slope,
}
