"""What the backward rules make of operations, spellings and heads."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import activations, attributions

KEY = jax.random.key(0)
X = jax.random.uniform(KEY, (4, 4, 3), minval=0.1)
BASELINE = 1.1 - X


@jax.jit
def relu6(z):
    """No activation, whatever its name."""
    return z / jnp.sum(z)


def larger(a, b):
    return jnp.where(a > b, a**2, b)


MOVING = {  # of homogeneous functions, which LRP shares out without rest
    "stack": lambda x: jnp.stack([x[0], 2 * x[1]])[1].sum(),
    "list": lambda x: jnp.array([x[0, 0, 0], x[0, 0, 1]]).sum(),
    "tile": lambda x: jnp.tile(x, (2, 1, 1))[3:].sum(),
    "set": lambda x: x.at[0].set(x[1]).sum() + x.at[0].set(0.0).sum(),
    "multiply": lambda x: x.at[0].multiply(2.0).sum(),
    "subtract": lambda x: x.at[0].subtract(x[1] / 3).sum(),
    "least": lambda x: jax.lax.reduce_window(
        x, jnp.inf, jax.lax.min, (2, 2, 1), (2, 2, 1), "VALID"
    ).sum(),
}
BENDING = {
    "product": lambda x: jnp.sum(x.at[0].multiply(x[1]) ** 2),
    "name": lambda x: 100 * jnp.sum(relu6(x)[0] ** 2),
    # functions of two arguments that choose by both
    "logaddexp": lambda x: jnp.logaddexp(x[0], 2 * x[1]).sum(),
    "hypot": lambda x: jnp.hypot(x[0], x[1]).sum(),
    "larger": lambda x: larger(x[0], x[1]).sum(),
}


@pytest.fixture(scope="module")
def sums():
    """Of DeepLIFT and what it should be, and of LRP and what it should be."""

    @jax.jit
    def run(x):
        return {
            name: (
                attributions.deep_lift(f, x, baseline=BASELINE).sum(),
                f(x) - f(BASELINE),
                attributions.lrp(f, x).sum() if name in MOVING else 0,
                f(x) if name in MOVING else 0,
            )
            for name, f in (MOVING | BENDING).items()
        }

    return run(X)


@pytest.mark.parametrize("name", MOVING | BENDING)
def test_contributions_add_up_through(name, sums):
    lifted, difference, relevance, value = sums[name]
    assert abs(difference) > 1e-3
    # sums of 48 float32 numbers of order one; epsilon is 1e-6
    np.testing.assert_allclose(lifted, difference, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(relevance, value, rtol=1e-5, atol=1e-5)


WEIGHTS = [
    jax.random.normal(jax.random.fold_in(KEY, i), s)
    for i, s in enumerate([(48, 6), (6, 3)])
]


def logits(x, act=nn.relu):
    return act(x.ravel() @ WEIGHTS[0]) @ WEIGHTS[1]


RULES = {
    "epsilon": activations.epsilon(),
    "zero": activations.zero,
    "gamma": activations.gamma(),
    "without_bias": activations.without_bias,
    "z_plus": activations.z_plus,
    "alpha_beta": activations.alpha_beta(),
}


def test_relevance_of_a_softmax_is_conserved():
    top = logits(X).argmax()

    @jax.jit
    def run(x):
        heads = {
            "probability": lambda x: jax.nn.softmax(logits(x))[top],
            "another": lambda x: jax.nn.softmax(logits(x))[(top + 1) % 3],
            "log": lambda x: jax.nn.log_softmax(logits(x))[top],
            "loss": lambda x: -jax.nn.log_softmax(logits(x))[(top + 1) % 3],
        }
        return {
            (head, name): (attributions.lrp(f, x, rule=rule), f(x))
            for head, f in heads.items()
            for name, rule in RULES.items()
        }

    for (head, name), (parts, score) in run(X).items():
        if name in ("alpha_beta", "z_plus"):
            # units whose contributions have all one sign lose the others' part; each of
            # two layers hands down at most alpha + beta = 3 times what it is given
            assert jnp.sum(jnp.abs(parts)) <= 9.001 * jnp.abs(score), head
        else:
            np.testing.assert_allclose(parts.sum(), score, rtol=1e-3, err_msg=name)


def test_relevance_does_not_depend_on_how_relu6_is_written():
    spelled = [
        nn.relu6,
        lambda z: jnp.clip(z, 0, 6),
        lambda z: jax.lax.clamp(0.0, z, 6.0),
        lambda z: jnp.minimum(jnp.maximum(z, 0), 6),
        lambda z: jnp.maximum(jnp.minimum(6, z), 0),
    ]
    assert jnp.any(3 * X.ravel() @ WEIGHTS[0] > 6)  # some units are cut off

    @jax.jit
    def run(x):
        return [
            attributions.lrp(lambda x, act=act: logits(3 * x, act)[0], x)
            for act in spelled
        ]

    first, *others = run(X)
    assert jnp.any(first != 0)
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", [attributions.deep_lift, attributions.lrp])
@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("sort", lambda x: jnp.sort(x.ravel())[0]),
        ("cumprod", lambda x: jnp.cumprod(x.ravel())[3]),
        (
            "abs` of complex numbers",
            lambda x: jnp.sum(jnp.abs(jnp.fft.rfft(x.ravel()))),
        ),
    ],
)
def test_what_has_no_rule_is_named_with_its_line(name, score, method):
    with pytest.raises(ValueError, match=rf"for `{name}.* at .*test_backward\.py:\d+"):
        method(score, X)


def test_a_choice_among_constants_by_the_image_is_named_with_its_line():
    table = functools.partial(jnp.interp, xp=jnp.linspace(0, 1, 4), fp=jnp.arange(4.0))
    with pytest.raises(
        ValueError, match=r"at .*test_backward\.py:\d+.* chooses by the"
    ):
        attributions.deep_lift(lambda x: table(x.ravel()).sum(), X)
