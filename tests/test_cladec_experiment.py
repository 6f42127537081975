"""What `experiments.cladec` trains, solves, attacks, compares and refuses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import (
    cladec,
    cladec_judged,
    cladec_report,
    cladec_setup,
    cladec_training,
    networks,
)

KEY = jax.random.key(0)


def classify(weights, x):
    """A feature map of four channels, and its mean as three logits."""
    h = jax.nn.relu(x @ weights["kernel"])
    h = jax.ad_checkpoint.checkpoint_name(h, "map")
    return jnp.mean(h, axis=(0, 1)) @ weights["head"]


def subject(count=30):
    rng = np.random.default_rng(0)
    weights = {
        "kernel": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32),
        "head": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32),
    }
    images = np.float32(rng.uniform(size=(count, 8, 8, 3)))
    labels = np.asarray(jax.vmap(classify, (None, 0))(weights, images)).argmax(1)
    part = {
        "id": np.arange(count),
        "image": images,
        "label": labels.astype(np.int32),
        "right": np.arange(count) % 3 > 0,
    }
    return cladec_setup.Setup(classify, weights, 3, {"map": (8, 8, 4)}, part, part, 1.0)


SMALL = cladec.Config(
    layers=("map",), alphas=(0.0, 0.5, 1.0), seeds=2, epochs=2, batch=10, save_every=1
)


def test_members_are_alphas_by_seeds_and_are_kept_when_they_are_trained(tmp_path):
    setup = subject()
    setup = setup._replace(shapes={"map": (8, 8, 4)})
    config = dataclasses.replace(SMALL, decoder="small")
    found = cladec_training.trained(config, setup, "map", "cladec", tmp_path)
    assert found["alpha"].tolist() == [0, 0, 0.5, 0.5, 1, 1]
    assert found["seed"].tolist() == [0, 1] * 3
    assert not found["diverged"].any()
    kernels = found["params"]["decoder"]["params"]["last"]["kernel"]
    assert len(kernels) == 6 and len(np.unique(kernels[:, 0, 0, 0, 0])) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["map-cladec.npz"]
    again = cladec_training.trained(config, setup, "map", "cladec", tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again, found)
    params = cladec_training.pick(found["params"], 0)
    x = jnp.asarray(setup.test["image"][0])
    decoded = cladec_training.explain(
        config, setup, "map", "cladec", setup.weights, params, x
    )
    assert decoded.shape == x.shape and decoded.min() >= 0 and decoded.max() <= 1


def test_linear_decoders_restore_what_a_linear_layer_keeps():
    """The map has more channels than the image, so a linear code would keep it all."""
    setup = subject(count=300)
    flat = setup.train["image"].reshape(300, -1)
    for kind, expected in (("principal", 0.0), ("linear", None)):
        params = cladec_training.pick(cladec_training.solved(setup, "map", kind), 0)
        one = lambda x, kind=kind, params=params: cladec_training.explain(
            SMALL, setup, "map", kind, setup.weights, params, x
        )
        found = np.asarray(jax.vmap(one)(jnp.asarray(setup.train["image"])))
        error = np.mean((found.reshape(300, -1) - flat) ** 2)
        if expected == 0.0:  # as many components as numbers in an image
            assert error < 1e-8
        else:
            assert error < 0.5 * np.var(flat, axis=0).mean()


def test_a_random_encoder_has_the_classifiers_numbers_in_another_order():
    weights = {"kernel": jnp.arange(12.0).reshape(3, 4), "bias": jnp.arange(3.0)}
    mixed = networks.shuffled(weights, KEY)
    assert np.any(mixed["kernel"] != weights["kernel"])
    assert sorted(mixed["kernel"].ravel().tolist()) == list(range(12))
    assert mixed["bias"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name == "eigenvector"))
        for name in cladec_judged.ATTACKS
    ],
)
def test_every_attack_keeps_ball_and_label_and_moves_what_is_decoded(name):
    setup = subject()
    x = jnp.asarray(setup.test["image"][0])
    model = lambda z: classify(setup.weights, z)
    mix = jax.random.normal(KEY, (3, 3))
    explain = lambda z: jax.nn.sigmoid(4 * (z - 0.5) @ mix)
    away = lambda z: jnp.mean((explain(z) - explain(x)) ** 2)

    @jax.jit
    def run(x):
        return cladec_judged.search(name, away, model, x, radius=0.02, steps=4, key=KEY)

    found = run(x)
    assert np.max(np.abs(found.x - x)) <= 0.02 + 1e-6
    assert jnp.argmax(model(found.x)) == jnp.argmax(model(x))
    assert away(found.x) > 0 and not found.stalled
    with pytest.raises(ValueError, match="`attacks` has 'sign': choose from pgd"):
        cladec_judged.search("sign", away, model, x, radius=0.1, steps=1, key=KEY)


def test_maps_of_a_layer_are_asked_for_each_and_others_once():
    setup = subject()._replace(shapes={"map": (8, 8, 4), "dense": (5,)})
    config = dataclasses.replace(SMALL, layers=("map", "dense"))
    found = cladec.maps_of(config, setup)
    assert [s["layer"] for s in found if s["map_by"] == "agreement"] == ["map", "dense"]
    assert [s["layer"] for s in found if s["map_by"] == "grad_cam"] == ["map"]
    flat = setup._replace(shapes={"map": (4,), "dense": (5,)})
    with pytest.raises(ValueError, match="none of `layers` is a feature map"):
        cladec.maps_of(config, flat)


def test_rows_are_named_by_their_decoder_and_seeds_are_the_sample():
    rows = [
        {"layer": "a", "kind": "cladec", "alpha": 0.001, "seed": 1, "rec": 0.6},
        {"layer": "a", "kind": "reference", "alpha": 0.0, "seed": 1, "rec": 0.2},
        {"layer": "b", "kind": "random", "alpha": 0.0, "seed": 1, "rec": 0.5},
    ]
    found = cladec_report.named(rows)
    assert [row["decoder"] for row in found] == [
        "ClaDec, alpha 0.001",
        "reference (RefAE)",
        "random encoder",
    ]
    assert [row["id"] for row in found] == [1, 1, 1]
    assert [row["rec_ratio"] for row in found[1:]] == [1.0, None]
    assert found[0]["rec_ratio"] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"alphas": (0.5, 1.5)}, "`alphas` has 1.5: choose from 0 to 1"),
        ({"alphas": (-0.5,)}, "`alphas` has -0.5: it must be zero or above"),
        ({"layers": ()}, "`layers` is empty"),
        ({"attacks": ("sign",)}, "`attacks` has 'sign': choose from pgd"),
        ({"maps": ("maps",)}, "`maps` has 'maps'"),
        ({"decoder": "big"}, "`decoder` has 'big': choose from authors, small"),
        ({"seeds": 0}, "`seeds` is 0"),
    ],
)
def test_what_means_nothing_is_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        cladec.check(dataclasses.replace(cladec.Config(), **knobs))


def test_every_configuration_passes_its_own_checks():
    for config in cladec.CONFIGS.values():
        cladec.check(config)


def test_too_few_images_that_are_right_are_refused():
    setup = subject()
    setup.test["right"][:] = False
    with pytest.raises(ValueError, match="0 of 30 test images are classified"):
        cladec.chosen(SMALL, setup)


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.realdata
def test_PEERS_F5_digits_have_the_shape_of_the_reproductions_table(tmp_path):
    """Its rows for the dense layer, from 0 to 0.99 of a sum, with fewer digits."""
    config = dataclasses.replace(
        cladec.CONFIGS["mnist"],
        **{"layers": ("dense",), "alphas": (0.0, 0.1121), "seeds": 1},
        **{"train": 800, "test": 200, "linear": False, "evaluate": False},
    )
    setup = cladec_setup.load(config, tmp_path)
    assert setup.accuracy > 0.9
    judges = {name: jnp.asarray(setup.test[name]) for name in ("image", "label")}
    judges["network"] = setup.weights

    def measured(kind):
        found = cladec_training.trained(config, setup, "dense", kind, tmp_path)
        explain = functools.partial(
            cladec_training.explain, config, setup, "dense", kind
        )
        one = functools.partial(
            cladec_judged.judged, explain, setup.fn, layer="dense", kind=kind
        )
        members = {**found, "evaluated": np.zeros(len(found["seed"]), np.float32)}
        return jax.jit(jax.vmap(one, (None, 0, None)))(judges, members, KEY)

    ours, reference = measured("cladec"), measured("reference")
    assert 1.2 * reference["rec"][0] < ours["rec"][0] < ours["rec"][1]
    assert ours["ce"][1] < ours["ce"][0]
    assert ours["accuracy"][1] > setup.accuracy - 0.05
