"""The last layer that `experiments.influence` trains, and what it attacks."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

from experiments import influence as script
from experiments import influence_head, influence_setup, networks
from protojax import influence, models

KEY = jax.random.key(0)


def problem(count=40, width=5):
    rng = np.random.default_rng(0)
    features = np.float32(rng.normal(size=(count, width)) / width**0.5)
    labels = rng.integers(2, size=count)
    start = {"kernel": jnp.zeros((width, 2)), "bias": jnp.zeros(2)}
    return {"features": jnp.asarray(features), "label": jnp.asarray(labels)}, start


def by_scipy(train, l2, weights):
    """The same minimum in double precision, by another method."""
    phi = np.append(train["features"], np.ones((len(weights), 1)), axis=1)
    phi, hot = phi.astype(np.float64), np.eye(2)[train["label"]]

    def objective(flat):
        logits = phi @ flat.reshape(-1, 2)
        each = scipy.special.logsumexp(logits, axis=1) - np.sum(hot * logits, axis=1)
        wrong = (scipy.special.softmax(logits, axis=1) - hot) * weights[:, None]
        value = np.mean(weights * each) + l2 / 2 * flat @ flat
        return value, (phi.T @ wrong / len(weights)).ravel() + l2 * flat

    start = np.zeros(2 * phi.shape[1])
    found = scipy.optimize.minimize(
        objective, start, jac=True, method="BFGS", options={"gtol": 1e-9}
    )
    return found.x.reshape(-1, 2)


@pytest.mark.parametrize("l2", [1e-3, 0.1])
def test_the_last_layer_is_at_the_minimum(l2):
    train, start = problem()
    fitted = jax.jit(influence_head.fit)(train, l2, start=start)
    expected = by_scipy(train, l2, np.ones(40))
    assert fitted.slope < 1e-6
    # A gradient of 1e-6 over a curvature of at least l2, and single precision.
    np.testing.assert_allclose(fitted.head["kernel"], expected[:-1], atol=1e-3)
    np.testing.assert_allclose(fitted.head["bias"], expected[-1], atol=1e-3)


def test_leaving_out_trains_anew():
    train, start = problem()
    head = jax.jit(influence_head.fit)(train, 0.01, start=start).head
    places = jnp.array([3, 20])
    anew = jax.jit(influence_head.without)(train, 0.01, head, places)
    assert np.all(anew.slope < 1e-6)
    for i, place in enumerate((3, 20)):
        expected = by_scipy(train, 0.01, 1.0 - np.eye(40)[place])
        np.testing.assert_allclose(anew.head["kernel"][i], expected[:-1], atol=1e-3)


@pytest.fixture(scope="module")
def last_layer():
    """Forty random images, features of theirs, and a last layer trained on those."""
    rng = np.random.default_rng(0)
    mix = jnp.asarray(np.float32(rng.normal(size=(48, 5)) / 4))
    features = lambda x: jax.nn.relu((x.ravel() - 0.5) @ mix)
    images = jnp.asarray(np.float32(rng.uniform(size=(40, 4, 4, 3))))
    labels = jnp.int32(rng.integers(2, size=40))
    config = script.Config(train=40, l2=0.1, leave_out=40, steps=4)
    train = {"features": jax.vmap(features)(images), "label": labels}
    weights, facts = influence_setup.trained(config, train)
    return types.SimpleNamespace(**locals())


def test_influences_at_the_training_damping_are_held_against_leaving_out(last_layer):
    facts, weights = last_layer.facts, last_layer.weights
    assert facts["slope"] < 1e-6 and facts["slope_without"] < 1e-6
    test = {"features": jnp.float32(np.linspace(0, 1, 5)), "label": jnp.int32(1)}
    every = len(weights["pairs"].values)
    at = functools.partial(
        jax.jit(script.left_out, static_argnames="pairs"), weights, test, KEY
    )
    right, much, none = (at(damping=d, pairs=every) for d in (0.1, 10.0, 0.0))
    assert right["correlation"] > 0.99 and 1.0 < right["slope"] < 1.3
    assert much["correlation"] < right["correlation"] and much["slope"] > 2
    assert none["stalled"] and not right["stalled"]
    few = at(damping=0.1, pairs=2)
    assert not few["stalled"] and few["correlation"] < right["correlation"]
    assert few["outside"] > 0.1 and right["outside"] < 1e-5


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        (models.SqueezeNet(), "fire9"),  # not conv10, whose means are the logits
        (models.ConvNet(classes=8), "stage4"),
    ],
)
def test_features_are_the_last_layer_that_is_not_the_logits(model, layer):
    x = np.zeros((64, 64, 3), np.float32)
    weights = jax.eval_shape(model.init, KEY, x)
    weights = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), weights)
    network = networks.Network(model.apply, weights, "parts", 64)
    assert influence_head.usual_layer(network, x) == layer


def test_a_network_without_layers_must_be_given_one():
    network = networks.Network(lambda w, x: w + x[0, 0], jnp.zeros(3), "parts", 8)
    with pytest.raises(ValueError, match="has no layers|`layer` must be named"):
        influence_head.usual_layer(network, np.zeros((8, 8, 3), np.float32))


def test_every_attack_stays_in_the_ball_and_the_searching_ones_keep_the_label(
    last_layer,
):
    features, weights = last_layer.features, last_layer.weights
    fn = lambda x: influence.softmax_logits(weights["head"], features(x))
    explain = lambda x: influence_setup.influences(weights, features(x), 1, 0.1).values

    def attacked(name, x):
        found = script.attack_by_name(
            *(name, fn, features, explain, weights, x),
            config=last_layer.config,
            radius=8 / 255,
            key=KEY,
        )
        return found.x

    images = last_layer.images[:8]
    before = np.argmax(jax.vmap(fn)(images), axis=1)
    every = jax.jit(
        jax.vmap(lambda x: {name: attacked(name, x) for name in script.Config.attacks})
    )
    for name, found in every(images).items():
        assert np.max(np.abs(found - images)) <= 8.0001 / 255
        assert found.min() >= 0 and found.max() <= 1
        assert np.any(found != images)
        if name != "random":
            assert np.all(np.argmax(jax.vmap(fn)(found), axis=1) == before)
    with pytest.raises(ValueError, match="`attacks` has 'sign'"):
        attacked("sign", images[0])


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"classes": (1, 1)}, r"`classes` is \(1, 1\): name two different"),
        ({"train": 2}, "`train` is 2: it must be at least 4"),
        ({"k": 0}, "`k` is 0: it must be above zero"),
        ({"radii": (1.0, -1.0)}, "`radii` has -1: it must be zero or above"),
        ({"attacks": ("sign",)}, "`attacks` has 'sign': choose from gradient_sign"),
        ({"pairs": (0,)}, "`pairs` has 0"),
        ({"top": 41}, r"`top` is 41: choose 1 to `train` \(40\)"),
        ({"leave_out": 2}, "`leave_out` is 2: it must be at least 3"),
        ({"l2": 0.0}, "`l2` is 0 and `damping` 0: the first must be"),
        ({"damping": -1.0}, "`damping` -1"),
        ({"model": "parts_small", "data": "parts:16", "classes": (0, 9)}, "has 9, and"),
        ({"model": "parts_small", "data": "parts:40"}, "`train` is 40, and there are"),
    ],
)
def test_what_means_nothing_is_refused(knobs, message, monkeypatch):
    fn = lambda weights, x: weights * jnp.mean(x)
    blank = networks.Network(fn, jnp.ones(8), "parts:16", 16)
    monkeypatch.setattr(networks, "load", lambda *_, **__: blank)
    with pytest.raises(ValueError, match=message):
        influence_setup.set_up(dataclasses.replace(script.Config(train=40), **knobs))


def test_a_plan_is_of_both_sweeps(last_layer, monkeypatch):
    found = influence_setup.Setup(
        *(networks.Network(None, None, "parts", 4), "stage1"),
        {**last_layer.weights, "network": ()},
        {"id": np.arange(5)},
        last_layer.images,
        {"features": 5, "slope": 0.0},
    )
    monkeypatch.setattr(influence_setup, "set_up", lambda _: found)
    _, both = script.set_up(last_layer.config)
    assert list(both) == ["", "leaving_out"]
    assert both[""].keep == [0, 1, 2] and "network" in both[""].weights
    assert len(both[""].settings) == 25 and "network" not in both["leaving_out"].weights


def test_the_folder_of_real_data_may_be_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PROTOJAX_DATA", str(tmp_path))
    assert networks.expand("npz:PROTOJAX_DATA/a.npz") == f"npz:{tmp_path}/a.npz"
    assert networks.expand("parts:5") == "parts:5"


@pytest.mark.slow
@pytest.mark.realdata
def test_a_last_layer_on_resnet_tells_cats_from_dogs(data_folder, monkeypatch):
    """Trained on 60 of CIFAR-10; influences agree with leaving each tenth out."""
    monkeypatch.setenv("PROTOJAX_DATA", str(data_folder))
    config = dataclasses.replace(
        script.CONFIGS["cifar10"], train=60, leave_out=6, images=4
    )
    setup = influence_setup.set_up(config)
    assert setup.facts["features"] == 64
    right, tested = setup.facts["accuracy"]
    assert right / tested > 0.8
    test = {name: setup.examples[name][0] for name in ("features", "label")}
    last = {name: leaf for name, leaf in setup.weights.items() if name != "network"}
    every = len(last["pairs"].values)
    found = script.left_out(last, test, KEY, damping=config.l2, pairs=every)
    assert found["correlation"] > 0.95
