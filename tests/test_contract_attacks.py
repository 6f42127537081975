"""Every attack on every kind of network: ball, bounds, mask, label, one trace."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import attacks, metrics, objectives
from tests import contract

SIZE, RADIUS = contract.SIZE, contract.RADIUS
KEY, BATCH = contract.KEY, contract.BATCH


def attacked(fn, x, radius, names):
    """The results of attacks, and what they chose by."""
    explain, twin, score = contract.explanations(fn, x)
    before = explain(x)
    climb = {"radius": radius, "step_size": radius / 2, "steps": 3}
    objective = objectives.top_k(twin, before, k=9)
    shift = lambda z: metrics.center_shift(before, explain(z))
    region = jnp.zeros_like(before).at[: SIZE // 2].set(1)
    mask = jnp.ones((SIZE, SIZE)).at[0].set(0)
    recipe = {"twin": twin, **climb}
    randomly = lambda z, *, key: twin(z + 0.01 * jax.random.normal(key, z.shape))
    vectors = {"radius": radius, "key": KEY, "steps": 4, "mask": mask}
    chosen_by = {
        "top_k": objectives.top_k(explain, before, k=9),
        "targeted": objectives.linear(explain, region),
        "mass_center": shift,
        "mass_center_truncated": shift,
    }
    of_objective = {
        "pgd": functools.partial(attacks.pgd, mask=mask, key=KEY, **climb),
        "l2": functools.partial(attacks.pgd, mask=mask, norm="l2", **climb),
        "random_sign": functools.partial(
            attacks.random_sign, radius=radius, key=KEY, samples=3
        ),
        "random_walk": functools.partial(attacks.random_walk, key=KEY, **climb),
        "eigenvector": functools.partial(attacks.eigenvector, score=score, **vectors),
        "singular_vector": functools.partial(
            attacks.singular_vector, explain=twin, **vectors
        ),
    }
    of_network = {
        "top_k": functools.partial(attacks.top_k, k=9, **recipe),
        "targeted": functools.partial(
            attacks.targeted, target=region, twin=randomly, noise=KEY, **climb
        ),
        "mass_center": functools.partial(attacks.mass_center, **recipe),
        "mass_center_truncated": functools.partial(
            attacks.mass_center_truncated, **recipe
        ),
    }
    assert {*of_objective, *of_network} == {*EVERY}
    return {
        name: (
            chosen_by.get(name, objective),
            of_network[name](fn, explain, x)
            if name in of_network
            else of_objective[name](objective, x),
        )
        for name in names
    }


ATTACKS = {"pgd", "random_sign", "random_walk", "eigenvector", "singular_vector"}
ATTACKS |= {"top_k", "targeted", "mass_center", "mass_center_truncated"}
EVERY = sorted(ATTACKS | {"l2"})
MASKED = ("pgd", "l2", "eigenvector", "singular_vector")
NULLS = ("random_sign", "random_walk")  # which may find nothing better
KEEP_THE_LABEL = ("top_k", "targeted", "mass_center", "mass_center_truncated")


# What compiles quickly is attacked in every way; the rest by one that climbs and keeps
# the label and by one that iterates on curvature, in every way among the slow tests.
WAYS = dict.fromkeys(contract.NETS, ["eigenvector", "top_k"]) | {
    "plain": EVERY,
    "nnx": EVERY,
}


def test_every_attack_is_listed():
    assert {*attacks.__all__} - {"COMPASS"} == ATTACKS


@pytest.mark.parametrize("kind", contract.KINDS)
def test_attacks_keep_the_contract(kind):
    check_attacks(contract.built(kind), WAYS[kind])


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [kind for kind in contract.NETS if WAYS[kind] != EVERY]
)
def test_every_attack_keeps_the_contract(kind):
    check_attacks(contract.built(kind), EVERY)


def check_attacks(fn, names):
    fn = jax.jit(fn)  # traced once, and not in every attack

    def all_of(x, radius):
        results = attacked(fn, x, radius, names)
        images = jnp.stack([x, *(out.x for _, out in results.values())])
        labels = jnp.argmax(jax.vmap(fn)(images), axis=1)
        of_images = {
            objective: jax.vmap(objective)(images)
            for objective in {objective for objective, _ in results.values()}
        }
        return {
            name: {
                "x": out.x,
                "value": out.value,
                "again": of_images[objective][place],
                "start": of_images[objective][0],
                "trace": out.trace,
                "label_kept": labels[place] == labels[0],
                "stalled": out.stalled,
            }
            for place, (name, (objective, out)) in enumerate(results.items(), 1)
        }

    counted, traces = contract.counting(all_of)
    program = jax.jit(jax.vmap(counted, (0, None)))
    program(BATCH, RADIUS / 2)
    found = program(BATCH, RADIUS)
    assert len(traces) == 1
    for name, out in found.items():
        check_attack(name, out)


def check_attack(name, out):
    change = out["x"] - BATCH
    assert jnp.all((out["x"] >= 0) & (out["x"] <= 1)), name
    if name == "l2":
        length = jnp.linalg.norm(change.reshape(2, -1), axis=1)
        assert jnp.all(length < RADIUS * 1.00001)
    else:
        assert jnp.all(jnp.abs(change) <= RADIUS * (1 + 1e-6)), name
    assert jnp.all(jnp.isfinite(out["trace"])), name
    assert not jnp.any(out["stalled"]), name
    if name not in NULLS:
        assert jnp.any(change != 0), name
    if name in MASKED:
        assert jnp.all(change[:, 0] == 0), name
    slack = 1e-5 * (1 + jnp.abs(out["start"]))  # float32, compiled twice
    assert jnp.all(out["value"] >= out["start"] - slack), name
    np.testing.assert_allclose(out["value"], out["again"], rtol=1e-3, atol=1e-4)
    if name in KEEP_THE_LABEL:
        assert jnp.all(out["label_kept"]), name
