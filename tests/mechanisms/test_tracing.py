"""What the walker re-emits is what was there, but for the rules."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax.mechanisms import tracing


def winding(x):
    """A function with every kind of call and loop."""
    h = nn.relu(jnp.sin(x))
    h, _ = jax.lax.scan(lambda c, _: (nn.relu(jnp.sin(c)), None), h, None, length=3)
    h = jax.checkpoint(lambda h: nn.silu(jnp.sin(h)))(h)
    h = jax.lax.cond(jnp.sum(h) > 0, lambda h: jnp.sin(h), lambda h: h, h)
    h = jax.lax.while_loop(lambda c: jnp.sum(c) < 3, lambda c: jnp.sin(c) + 1, h)
    return {"h": h, "x": x}


X = jax.random.normal(jax.random.key(0), (4, 3))


@pytest.mark.parametrize("equivalent", [True, False])
@pytest.mark.parametrize("wrap", [jax.jit, lambda f: f])
def test_a_rule_that_changes_nothing_changes_nothing(equivalent, wrap):
    met = []
    rules = {"sin": lambda eqn, x: (met.append(eqn.source), [jnp.sin(x)])[1]}
    fn = wrap(tracing.retrace(winding, rules, equivalent=equivalent))
    jax.tree.map(np.testing.assert_array_equal, fn(X), wrap(winding)(X))
    assert len(met) >= 5 and all("test_tracing.py" in line for line in met)


@pytest.mark.parametrize("equivalent", [True, False])
def test_custom_derivatives_survive(equivalent):
    rules = {"sin": lambda _, x: [jnp.sin(x)]}
    fn = lambda x: nn.relu(jnp.sin(nn.relu(x)))
    same = tracing.retrace(fn, rules, equivalent=equivalent)
    at = jnp.zeros(3)  # where relu's own derivative, zero, is not that of max
    np.testing.assert_array_equal(jax.jacobian(same)(at), jax.jacobian(fn)(at))


def test_a_rule_may_decline():
    fn = tracing.retrace(jnp.sin, {"sin": lambda *_: NotImplemented})
    assert fn(1.0) == jnp.sin(1.0)


def test_a_rule_may_hold_a_traced_value():
    def scaled(x, factor):
        rules = {"sin": lambda _, z: [factor * z]}
        return tracing.retrace(jax.checkpoint(jax.jit(jnp.sin)), rules)(x)

    assert jax.jit(jax.grad(scaled, 1))(2.0, 3.0) == 2.0


def test_a_traced_value_inside_a_loop_is_refused_by_name():
    def scaled(x, factor):
        rules = {"sin": lambda _, z: [factor * z]}
        loop = lambda x: jax.lax.fori_loop(0, 2, lambda _, c: jnp.sin(c), x)
        return tracing.retrace(loop, rules)(x)

    with pytest.raises(ValueError, match="inside `scan`.*Python number"):
        jax.jit(scaled)(2.0, 3.0)


def test_a_straight_line_runs_to_the_same_values():
    program = tracing.straight_line(winding, X, whole=lambda call: call.label == "relu")
    places = program.run(X)
    outputs = [tracing.read(places, place) for place in program.outputs]
    expected = jax.tree.leaves(winding(X))
    jax.tree.map(np.testing.assert_array_equal, outputs, expected)
    names = [step.equation.label or step.equation.name for step in program.steps]
    assert names[:3] == ["sin", "relu", "scan"] and "jit" not in names


def test_a_function_called_twice_takes_two_places():
    inner = jax.jit(jnp.sin)
    program = tracing.straight_line(lambda x: inner(inner(x)), 1.0)
    assert len({step.outputs for step in program.steps}) == 2
    assert program.run(1.0)[program.outputs[0]] == jnp.sin(jnp.sin(1.0))


def test_what_jax_wrote_itself_has_the_line_of_the_call():
    program = tracing.straight_line(lambda x: nn.silu(nn.softplus(x)), X)
    sources = [step.equation.source for step in program.steps]
    assert len(sources) > 5 and all("test_tracing.py" in line for line in sources)
