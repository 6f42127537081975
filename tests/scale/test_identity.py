import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax.scale import identity


def knob(weights, x, *, steps, act):
    return weights, x, steps, act


def test_names_have_no_addresses_and_show_the_knobs():
    bound = functools.partial(knob, steps=3, act=jax.nn.relu)
    name = identity.name(bound)
    assert name == ["knob", [], {"steps": 3, "act": "relu"}]
    assert "0x" not in str(identity.name((object(), bound, lambda: 0, None, 1.5)))


@pytest.mark.parametrize(
    "other",
    [
        {"a": np.zeros(3), "b": np.ones(2)},
        {"a": np.zeros(2), "c": np.ones(2)},
        {"a": np.zeros(2), "b": np.ones(2, np.float32)},
        {"a": np.zeros((2, 1)), "b": np.ones(2)},
        {"a": np.ones(2), "b": np.zeros(2)},
    ],
)
def test_a_digest_sees_values_shapes_types_and_names(other):
    tree = {"a": np.zeros(2), "b": np.ones(2)}
    assert identity.digest(tree) == identity.digest({k: tree[k] for k in ("b", "a")})
    assert identity.digest(tree) != identity.digest(other)


def test_a_digest_takes_keys_numbers_and_bfloat16():
    tree = (jax.random.key(0), 1.5, jnp.ones(3, jnp.bfloat16), None)
    assert identity.digest(tree) == identity.digest(tree)
    assert identity.digest(tree) != identity.digest((jax.random.key(1), *tree[1:]))


def test_another_process_finds_the_same_digest():
    code = (
        "import numpy as np; from protojax.scale import identity;"
        "print(identity.digest({'w': np.arange(5.0)}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == identity.digest({"w": np.arange(5.0)})
