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
    classifier,
    networks,
    xnn,
)
from protojax import activations, models
from tests import small

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
    "name", small.slow_among(cladec_judged.ATTACKS, {"eigenvector"})
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
    rows = [{**row, "stalled": False} for row in rows]
    found = cladec_report.named(rows)
    assert [row["decoder"] for row in found] == [
        "ClaDec, alpha 0.001",
        "reference (RefAE)",
        "random encoder",
    ]
    assert [row["id"] for row in found] == [1, 1, 1]
    assert [row["rec_ratio"] for row in found[1:]] == [1.0, None]
    assert found[0]["rec_ratio"] == pytest.approx(3.0)
    rows[1]["stalled"] = True  # there is nothing to compare with
    assert cladec_report.named(rows)[0]["rec_ratio"] is None


def test_a_decoder_that_diverged_gives_way_or_its_rows_say_so():
    members = {
        "params": {"bias": np.arange(4.0)},
        "alpha": np.array([0.5, 0.5, 0.0, 0.0]),
        "seed": np.array([0, 1, 0, 1]),
        "diverged": np.array([True, False, True, True]),
    }
    chosen = cladec.first_seeds(members)
    assert chosen["params"]["bias"].tolist() == [1, 2]
    assert chosen["diverged"].tolist() == [False, True]
    setup = subject()
    explain = lambda _, params, x: x + params["bias"]
    one = functools.partial(
        cladec_judged.attacked, {"map": explain}, setup.fn, 2, layer="map"
    )
    weights = {"network": setup.weights, "alphas": jnp.array([0.5, 0.0])}
    image = jnp.asarray(setup.test["image"])
    example = {"image": image[0], "other": image[1], "label": 0}
    run = jax.jit(functools.partial(one, attack="random_best", radius=0.02))
    rows = [
        run(weights | {"map": chosen}, example, KEY, alpha=jnp.float32(alpha))
        for alpha in (0.5, 0.0)
    ]
    assert [bool(row["stalled"]) for row in rows] == [False, True]


@pytest.mark.slow
def test_the_authors_classifier_is_trained_with_its_norms_alive(tmp_path):
    """On halves of light and dark, in a few steps, and kept."""
    draw, labels = np.random.default_rng(0), np.arange(64) % 2
    bright = np.where(labels[:, None, None, None], 0.8, 0.2)
    images = np.float32(bright + 0.1 * draw.normal(size=(64, 32, 32, 1)))
    part = {"image": images, "label": labels}
    config = dataclasses.replace(
        SMALL, model=cladec_setup.AUTHORS, batch=16, classifier_epochs=4
    )
    model = models.StridedVGG(2)
    weights = cladec_setup.own(config, model, part, tmp_path)
    logits = jax.jit(jax.vmap(model.apply, (None, 0)))(weights, images)
    assert np.mean(np.argmax(logits, axis=1) == labels) > 0.9
    moved = weights["batch_stats"]["norm0"]["mean"]
    assert np.any(moved != 0) and not np.any(np.isnan(moved))
    again = cladec_setup.own(config, model, part, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again, weights)


def test_images_are_enlarged_as_the_authors_do_and_gray_ones_have_one_channel(tmp_path):
    config = dataclasses.replace(SMALL, image_size=16, train=2, test=2, enlarged=20)
    config = dataclasses.replace(config, data="parts:4", gray=True)
    with pytest.raises(ValueError, match="`gray` keeps one channel, and 'parts:4' has"):
        cladec_setup.both_splits(config, None)
    gray = np.random.default_rng(0).integers(0, 256, (4, 16, 16), np.uint8)
    np.savez(tmp_path / "gray.npz", images=gray, labels=np.arange(4))
    config = dataclasses.replace(config, data=f"npz:{tmp_path}/gray.npz")
    small = dataclasses.replace(config, enlarged=None)
    (large, _), (plain, _) = (
        cladec_setup.both_splits(c, None) for c in (config, small)
    )
    rows = np.arange(20) * 16 // 20
    assert large["image"].shape == (2, 20, 20, 1)
    np.testing.assert_array_equal(large["image"], plain["image"][:, rows][:, :, rows])


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


NETWORKS = {
    "parts": (classifier.network(classifier.CONFIGS["default"]), 64),
    "parts_small": (classifier.network(classifier.CONFIGS["small"]), 32),
    "cifar10_resnet20": (models.CifarResNet(20), 32),
    "squeezenet1_1": (models.SqueezeNet(), 224),
    "mobilenet_v2": (models.MobileNetV2(), 224),
    cladec_setup.SMALL: (models.SmallClassifier(), 28),
    cladec_setup.AUTHORS: (models.StridedVGG(), 32),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_layers_of_every_configuration_are_there(name):
    model, size = NETWORKS[name]
    x = jnp.zeros((size, size, 3))
    like = jax.eval_shape(model.init, KEY, x)
    weights = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    there = activations.layers(functools.partial(model.apply, weights), x)
    for config in cladec.CONFIGS.values():
        assert config.model != name or set(config.layers) <= set(there)
    for config in xnn.CONFIGS.values():
        assert config.model != name or config.layer in there


def test_too_few_images_that_are_right_are_refused():
    setup = subject()
    setup.test["right"][:] = False
    with pytest.raises(ValueError, match="0 of 30 test images are classified"):
        cladec.chosen(SMALL, setup)


SUMS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.99, 0.999, 0.9999, 1.0)
"""The alphas of the reproduction, whose squared errors are sums over 784 pixels."""


def of_means(alpha):
    """The alpha of a mean over pixels that weighs as this one of a sum."""
    return alpha / (alpha + 784 * (1 - alpha))


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "layer", "sums"),
    [
        ("mnist", "dense", SUMS),
        ("mnist", "conv", SUMS[::6]),
        ("fashion", "dense", SUMS[::6]),
        ("fashion", "conv", SUMS[::6]),
    ],
)
def test_PEERS_F5_decoders_have_the_shape_of_the_reproductions_table(
    name, layer, sums, tmp_path, data_folder, monkeypatch
):
    """All ten of its alphas where they are cheapest, else 0 and 0.99; fewer images."""
    monkeypatch.setenv("PROTOJAX_DATA", str(data_folder))
    config = dataclasses.replace(
        cladec.CONFIGS[name],
        **{"layers": (layer,), "alphas": tuple(map(of_means, sums)), "seeds": 1},
        **{"train": 800, "test": 200, "linear": False, "evaluate": False},
    )
    setup = cladec_setup.load(config, tmp_path)
    assert setup.accuracy > {"mnist": 0.9, "fashion": 0.75}[name]
    judges = {name: jnp.asarray(setup.test[name]) for name in ("image", "label")}
    judges["network"] = setup.weights

    def measured(kind):
        found = cladec_training.trained(config, setup, layer, kind, tmp_path)
        explain = functools.partial(cladec_training.explain, config, setup, layer, kind)
        one = functools.partial(
            cladec_judged.judged, explain, setup.fn, layer=layer, kind=kind
        )
        members = {**found, "evaluated": np.zeros(len(found["seed"]), np.float32)}
        rows = jax.jit(jax.vmap(one, (None, 0, None)))(judges, members, KEY)
        return found, {name: np.asarray(values) for name, values in rows.items()}

    (_, ours), (trained, reference) = measured("cladec"), measured("reference")
    assert not np.any(ours["stalled"])
    assert np.all(1.2 * reference["rec"] < ours["rec"])
    at = {alpha: place for place, alpha in enumerate(sums)}
    few = [
        ours["rec"][at[alpha]] for alpha in sums if alpha in (0, 0.99, 0.999, 0.9999)
    ]
    assert few == sorted(few)  # the error rises with alpha
    if (name, layer) == ("mnist", "dense"):  # elsewhere it takes more images than these
        assert ours["ce"][at[0.99]] < ours["ce"][0]
        assert ours["accuracy"][at[0.99]] > setup.accuracy - 0.05
    # The reference has an encoder of its own, and the classifier stays as it was.
    own, theirs = (
        tree["params"]["conv1"]["kernel"]
        for tree in (
            cladec_training.pick(trained["params"]["encoder"], 0),
            setup.weights,
        )
    )
    assert own.shape == theirs.shape and np.mean(own == theirs) < 0.01
    again = cladec_setup.load(config, tmp_path).weights
    jax.tree.map(np.testing.assert_array_equal, again, setup.weights)
