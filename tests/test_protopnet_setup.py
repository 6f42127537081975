"""What `experiments.protopnet` is set up from: stages, loss, backbones, images."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import (
    augmentation,
    backbones,
    networks,
    protopnet,
    protopnet_data,
    protopnet_setup,
    protopnet_stages,
    protopnet_training,
)
from protojax import models
from tests import squares

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return squares.config(tmp_path_factory.mktemp("data"))


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_stages_are_the_published_ones():
    of = lambda config: [
        (kind, steps // 7) for kind, steps in protopnet_stages.stages(config, 7)
    ]
    published = protopnet.CONFIGS["cub-vgg19"]
    assert of(published) == [
        *(("warm", 5), ("joint", 6), ("push", 0), ("last", 20)),
        *(("joint", 10), ("push", 0), ("last", 20), ("prune", 0), ("last", 20)),
    ]
    linear = dataclasses.replace(published, similarity="linear", needed=0)
    expected = [("warm", 5), ("joint", 6), ("push", 0), ("joint", 10), ("push", 0)]
    assert of(linear) == expected


def test_a_plan_of_published_sets_loads_nothing():
    text = protopnet.plan(protopnet.CONFIGS["cub-resnet34"])
    assert "| warm | 5 |" in text and "| push |  |" in text
    assert "30 passes over tfds:caltech_birds2011#bbox are an epoch" in text
    with pytest.raises(ValueError, match="`epochs` is 0"):
        protopnet.plan(dataclasses.replace(protopnet.CONFIGS["cars-vgg19"], epochs=0))


@pytest.mark.slow
def test_a_plan_tries_training_and_sweeps(config):
    text = protopnet.plan(config)
    assert "Training: about" in text and "memory per device" in text
    assert "| prune |  |" in text


def test_rates_fall_as_published_and_add_decay_before_the_moments():
    config = dataclasses.replace(protopnet.PUBLISHED, seed=1)
    params = {
        "backbone": jnp.array([2.0]),
        "head": {"prototypes": jnp.array([2.0]), "last_layer": jnp.array([2.0])},
    }
    optimizers = protopnet_stages.optimizers(config, params, epoch=1)
    zero = jax.tree.map(jnp.zeros_like, params)
    state, rates = optimizers["joint"].init(params), []
    for _ in range(15):  # no gradient but the decay: Adam moves by the rate
        updates, state = optimizers["joint"].update(zero, state, params)
        rates.append(-float(updates["backbone"][0]))
    expected = [1e-4] * 4 + [1e-5] * 5 + [1e-6] * 5 + [1e-7]
    np.testing.assert_allclose(rates, expected, rtol=1e-3)
    assert not updates["head"]["prototypes"] and not updates["head"]["last_layer"]
    ones = jax.tree.map(jnp.ones_like, params)
    warm, _ = optimizers["warm"].update(ones, optimizers["warm"].init(params), params)
    last, _ = optimizers["last"].update(ones, optimizers["last"].init(params), params)
    moved = [u["backbone"][0] for u in (warm, last)]
    moved += [u["head"][n][0] for u in (warm, last) for n in sorted(params["head"])]
    np.testing.assert_allclose(moved, [0, 0, 0, -3e-3, -1e-4, 0], rtol=1e-4)


def test_weights_that_no_prototype_sees_are_left_out(config):
    backbone = protopnet_setup.set_up(config).network.backbone
    assert {*backbone.weights} == {"seen"}
    fn, weights = squares.network()
    x = np.random.default_rng(1).uniform(size=(8, 8, 3)).astype(np.float32)
    whole = models.protopnet.features(fn, "map")(weights, x)
    np.testing.assert_array_equal(backbone.features(backbone.weights, x), whole)
    kept, fill = backbones.trimmed(lambda w, x: w[0] * x, (1.0, 2.0), 3.0)
    assert fill(kept) == (1.0, 2.0)


def test_a_backbone_that_is_never_trained_is_looked_at_once(config):
    fixed = dataclasses.replace(config, warm_epochs=3)
    setup = protopnet_setup.set_up(fixed)
    batches = next(setup.examples.batches(4)), next(setup.lessons.batches(4))
    assert [batch["image"].shape for batch in batches] == [(10, 8, 8, 3), (10, 4, 4, 6)]
    equal(*({name: b[name] for name in ("id", "label")} for b in batches))
    state = protopnet_training.begin(setup.learner, fixed, setup.lessons)
    trained = setup.of_images(
        protopnet_training.Trained(setup.learner, (state.params, state.extra), [])
    )
    found = [
        networks.mapped(network.apply())(weights, batch["image"])
        for (network, weights), batch in zip(
            [trained[:2], setup.for_lessons(trained)], batches, strict=True
        )
    ]
    np.testing.assert_allclose(*found, rtol=1e-5)
    equal(setup.for_lessons(trained)[1], (state.params, state.extra))


def test_live_batch_norms_move_and_frozen_ones_do_not(config):
    model = models.CifarResNet(depth=8)
    shapes = jax.eval_shape(model.init, KEY, jnp.zeros((8, 8, 3)))
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), shapes)
    of = functools.partial(backbones.of_layer, model.apply, variables, "layer1.0", 8)
    backbone, stuck = of(model=model), of()
    assert {*backbone.stats["batch_stats"]} == {"bn1", "layer1.0"}  # and no more
    assert stuck.live is None
    setup = protopnet_setup.set_up(config)
    network = setup.network._replace(backbone=backbone)
    state = protopnet_training.begin(network, config, setup.examples)
    batch, changed = next(setup.examples.batches(0)), {}
    for kind in ("live", "frozen"):
        knobs = dataclasses.replace(config, batch_norm=kind)
        loss = functools.partial(protopnet_stages.loss, network, knobs, None)
        _, (after, _) = jax.jit(loss)(state.params, state.extra, batch, KEY)
        assert jax.tree.structure(after) == jax.tree.structure(backbone.stats)
        differ = jax.tree.map(lambda a, b: np.any(a != b), backbone.stats, after)
        changed[kind] = jax.tree.leaves(differ)
    assert all(changed["live"]) and not any(changed["frozen"])


def test_published_backbones_are_looked_at_where_the_paper_does():
    names = ("vgg11", "vgg19_bn", "resnet18", "resnet34", "resnet152", "densenet161")
    found = [backbones.published(name) for name in names]
    assert [layer for _, layer, _ in found] == [
        *("pool5", "pool5", "layer4.1", "layer4.2", "layer4.2", "norm5")
    ]
    assert found[1][0] == models.VGG(19, norm=True)
    assert backbones.published("parts") is None


def test_another_experiment_can_change_what_is_trained_on(config):
    setup = protopnet_setup.set_up(config)
    state = protopnet_training.begin(setup.network, config, setup.examples)
    batch = next(setup.examples.batches(0))
    seen = []

    def prepare(network, weights, batch, key):
        seen.append((network, jax.tree.structure(weights), key.shape))
        return jnp.full_like(batch["image"], 0.25)

    args = state.params, state.extra, batch, KEY
    of = functools.partial(protopnet_stages.loss, setup.network, config)
    gray = {**batch, "image": jnp.full_like(batch["image"], 0.25)}
    changed, (_, log) = jax.jit(functools.partial(of, prepare))(*args)
    assert seen == [(setup.network, jax.tree.structure(args[:2]), ())]
    expected, (_, other) = jax.jit(functools.partial(of, None))(*args[:2], gray, KEY)
    equal((changed, log), (expected, other))


def test_dossier_8_the_loss_is_that_of_the_formula_and_convex_in_the_votes(config):
    setup = protopnet_setup.set_up(config)
    state = protopnet_training.begin(setup.network, config, setup.examples)
    batch = next(setup.examples.batches(0))
    votes, head = state.params["head"]["last_layer"], state.params["head"]

    def at(votes):
        params = {**state.params, "head": {**head, "last_layer": votes}}
        loss = functools.partial(protopnet_stages.loss, setup.network, config, None)
        return loss(params, state.extra, batch, KEY)

    of = jax.jit(jax.value_and_grad(at, has_aux=True))
    (value, (_, log)), _ = of(votes)
    weights = state.params, state.extra
    d = jax.vmap(setup.network.apply("distances"), (None, 0))(weights, batch["image"])
    d = np.asarray(d).min(axis=(1, 2))
    own = batch["label"][:, None] == np.array(setup.network.head.owners)
    logits = np.log((d + 1) / (d + 1e-4)) @ np.asarray(votes)
    entropy = np.log(np.exp(logits).sum(1)) - logits[np.arange(10), batch["label"]]
    cluster = np.where(own, d, np.inf).min(1).mean()
    separation = np.where(own, np.inf, d).min(1).mean()
    expected = entropy.mean() + 0.8 * cluster - 0.08 * separation + 1e-4 * 6
    assert float(value) == pytest.approx(expected, rel=1e-4)
    right = np.mean(logits.argmax(1) == batch["label"])
    assert float(log["accuracy"]) == pytest.approx(right)

    # it is convex in the votes, as the features do not move
    other = jax.random.normal(KEY, (6, 3))
    middle, *ends = (of(v)[0][0] for v in ((votes + other) / 2, votes, other))
    assert middle < sum(ends) / 2
    # and falls with every step of all images that is short enough: similarities are
    # below 9.3, so that its curvature is below 6 * 9.3^2 / 2
    values = []
    for _ in range(5):
        (value, _), slope = of(votes)
        votes, values = votes - slope / 260, [*values, float(value)]
    assert np.all(np.diff(values) <= 0)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"per_class": 0}, "`per_class` is 0: it must be above zero"),
        ({"pushes": ()}, "`pushes` is empty: give at least one"),
        ({"pushes": (2,)}, r"`pushes` is \(2,\): the last must be after epoch 3"),
        ({"needed": 7}, "`needed` is 7: it is out of the 6 nearest"),
        ({"batch": 31}, "`batch` is 31, and there are 30 training images"),
        ({"batch_norm": "live"}, "`batch_norm` is live, and .* has no batch norms"),
        ({"layer": "nothing"}, "no layer is called 'nothing'"),
        ({"layer": None}, "`layer` must be named .*: choose from map"),
        ({"backbone": "resnet34", "layer": None}, "PROTOJAX_DATA|no weight file"),
        ({"weights": "random"}, "`weights` is 'random', and .* comes with its own"),
    ],
)
def test_what_means_nothing_is_refused(config, knobs, message, monkeypatch, tmp_path):
    monkeypatch.setenv("PROTOJAX_DATA", str(tmp_path))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        protopnet_setup.set_up(dataclasses.replace(config, **knobs))


def test_labels_are_those_of_the_test_images(config, tmp_path):
    arrays = dict(np.load(config.train.removeprefix("npz:")))
    for name in ("y_train", "y_test"):
        arrays[name] = arrays[name] * 10 + 7
    np.savez(tmp_path / "numbered.npz", **arrays)
    named = f"npz:{tmp_path}/numbered.npz"
    setup = protopnet_setup.set_up(dataclasses.replace(config, train=named, test=named))
    assert setup.classes == ("class 7", "class 17", "class 27")
    assert {*next(setup.examples.batches(0))["label"]} == {0, 1, 2}
    arrays["y_train"][3] = 99
    np.savez(tmp_path / "strange.npz", **arrays)
    strange = dataclasses.replace(
        config, train=f"npz:{tmp_path}/strange.npz", test=named
    )
    with pytest.raises(ValueError, match="`train` has images of class 99, and `test`"):
        list(protopnet_setup.set_up(strange).examples.in_order())
    birds = {"train": "parts:30", "test": "parts:9#apart"}
    with pytest.raises(ValueError, match="has the classes bird 0, .* bird 5, ..., and"):
        protopnet_setup.set_up(dataclasses.replace(config, **birds))


def test_augmented_images_are_of_the_image_and_differ():
    ramp = jnp.stack(jnp.meshgrid(jnp.linspace(0, 1, 16), jnp.linspace(0, 1, 16)), -1)
    x = jnp.concatenate([ramp, jnp.full((16, 16, 1), 0.5)], axis=-1)
    of = jax.jit(jax.vmap(lambda key: augmentation.augment(x, key=key, elastic=True)))
    images = np.asarray(of(jax.random.split(KEY, 64)))
    assert images.min() >= 0 and images.max() <= 1
    np.testing.assert_allclose(images[..., 2], 0.5, atol=1e-6)  # nothing is made up
    middle = images[:, 7:9, 7:9, :2].mean((1, 2))
    # the largest skew makes a side 0.6 as long: its diagonals meet 1/8 from the center
    assert np.abs(middle - 0.5).max() < 16 / 15 / 8
    mirrored = images[:, 8, -3, 0] < images[:, 8, 2, 0]
    assert 16 < mirrored.sum() < 48
    assert len(np.unique(images[:, 3, 5, 0].round(5))) > 48


def test_images_that_would_fill_the_memory_are_read_as_they_are_needed(
    config, monkeypatch
):
    held, _ = protopnet_data.from_source(config, 8)
    monkeypatch.setattr(protopnet_data, "KEPT", 0)
    read, _ = protopnet_data.from_source(config, 8)
    assert held.epoch == read.epoch == 3
    for start in (0, 4):
        equal(next(held.batches(start)), next(read.batches(start)))
    for one, other in zip(held.in_order(), read.in_order(), strict=True):
        equal(one, other)
