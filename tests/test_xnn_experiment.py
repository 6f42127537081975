"""What `experiments.xnn` trains, chooses, refuses, and gives to people to name."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from experiments import (
    networks,
    trainings,
    xnn_attacked,
    xnn_methods,
    xnn_study,
    xnn_training,
)
from experiments import xnn as script
from experiments import xnn_setup as setting_up

KEY = jax.random.key(0)


def problem(count=40, size=8, classes=2):
    rng = np.random.default_rng(0)
    z = np.float32(rng.uniform(size=(count, size)))
    scores = np.float32(z[:, :classes] - z[:, classes : 2 * classes])
    own = np.eye(classes, dtype=bool)[np.arange(count) % classes]
    return xnn_training.Data(*map(jnp.asarray, (z, scores, own, np.arange(4))))


PLAN = script.Config(
    epochs=3, pre_epochs=0, patience=9, batch=12, rate=1e-2, rounds=1, save_every=1
)


def tiny(size=8):
    how = xnn_methods.NETWORKS["srae"]
    return how.model(size, (1, 1, size), features=2, widths=(4,), scores=1)


@pytest.mark.slow
def test_training_is_kept_and_taken_up_where_it_was_stopped(tmp_path, monkeypatch):
    """Stopped in its second epoch, it comes to the same; finished, it is read."""
    args = ("srae", tiny(), problem(), [(0,), (1,)], 2, PLAN)
    through = xnn_training.trained(*args, tmp_path / "through")
    real, saves = trainings.checkpoints.save, []

    def stopping(*given, **knobs):
        saves.append(real(*given, **knobs))
        if len(saves) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainings.checkpoints, "save", stopping)
    with pytest.raises(KeyboardInterrupt):
        xnn_training.trained(*args, tmp_path / "stopped")
    monkeypatch.setattr(trainings.checkpoints, "save", real)
    again = xnn_training.trained(*args, tmp_path / "stopped")
    jax.tree.map(np.testing.assert_array_equal, again.params, through.params)
    assert again.facts["c"].tolist() == [0, 0, 1, 1]
    assert again.facts["seed"].tolist() == [0, 1, 0, 1]
    assert [p.name for p in (tmp_path / "stopped").iterdir()] == ["srae.npz"]
    monkeypatch.setattr(xnn_training, "_round", None)  # it would be called
    read = xnn_training.trained(*args, tmp_path / "stopped")
    jax.tree.map(np.testing.assert_array_equal, read.params, through.params)


def test_a_network_that_is_trained_anew_takes_the_place_of_its_former_self():
    first = {"kernel": jnp.zeros((3, 2))}
    params = xnn_training._put(None, np.arange(3), first)
    params = xnn_training._put(params, np.array([0, 2]), {"kernel": jnp.ones((2, 2))})
    assert params["kernel"][:, 0].tolist() == [1, 0, 1]


def test_features_are_chosen_by_a_lasso_that_finds_the_ones_that_count():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(200, 12))
    codes[:, 5] = 3.0
    score = (
        4 * codes[:, 2] - 2 * codes[:, 7] + codes[:, 9] + 0.01 * rng.normal(size=200)
    )
    found = xnn_methods.chosen_by_lasso(codes, score, 3)
    assert found.tolist() == [2, 7, 9]
    with pytest.raises(ValueError, match="`features` is 12, and only 11 codes vary"):
        xnn_methods.chosen_by_lasso(codes, score, 12)


def test_codes_of_nmf_are_those_of_non_negative_least_squares():
    rng = np.random.default_rng(0)
    atoms = rng.uniform(size=(3, 10))
    z = rng.uniform(size=(4, 3)) @ atoms + 0.05 * rng.uniform(size=(4, 10))
    params = {"atoms": jnp.float32(atoms), "chosen": jnp.array([0, 2])}
    found = xnn_methods.reader("nmf", None).features(params, jnp.float32(z))
    expected = np.stack([scipy.optimize.nnls(atoms.T, row)[0] for row in z])
    np.testing.assert_allclose(found, expected[:, [0, 2]], atol=2e-3)


@pytest.mark.parametrize("method", xnn_methods.FITTED)
def test_methods_without_training_have_a_read_out_for_each_class(method, monkeypatch):
    monkeypatch.setattr(xnn_methods, "_TOP_K_ROUNDS", 30)
    data = problem()
    keys = jax.random.split(KEY, 2)
    found = xnn_methods.fitted(
        method, data.z, data.scores, features=3, size=6, keys=keys
    )
    seeds = 2 if method == "top_k" else 1
    assert found["readout"]["kernel"].shape == (seeds, 2, 3, 1)
    reader = xnn_methods.reader(method, None)
    for c in range(2):
        params = jax.tree.map(lambda leaf, c=c: leaf[0, c], found)
        features = reader.features(params, data.z)
        predicted = features @ params["readout"]["kernel"]
        predicted = predicted + params["readout"]["bias"][None]
        assert features.shape == (40, 3)
        assert reader.decoded(params, data.z).shape == data.z.shape
        assert reader.drawn(params, data.z[0]).shape == (3,)
        assert np.corrcoef(predicted[:, 0], data.scores[:, c])[0, 1] > 0.6


def test_shares_of_contributions_sum_to_one_and_know_when_nothing_moved():
    parts = jnp.array([3.0, -1.0, 0.0])
    assert xnn_attacked.shares(parts).tolist() == [0.75, 0.25, 0]
    assert xnn_attacked.shares(jnp.zeros(4)).tolist() == [0.25] * 4
    same = xnn_attacked.moved(parts, parts)
    assert same["cosine"] == pytest.approx(1) and same["change"] == 0
    assert same["top_kept"] and same["overlap"] == 1
    other = xnn_attacked.moved(parts, jnp.array([1.0, 0.0, 3.0]))
    assert not other["top_kept"] and other["overlap"] == 0.5
    assert other["top_share"] == 0.25


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * name.endswith("vector"))
        for name in xnn_attacked.ATTACKS
    ],
)
def test_every_attack_keeps_ball_and_label_and_lowers_the_top_share(name):
    mix = jax.random.normal(KEY, (48, 6)) / 5
    fn = lambda x: jax.nn.relu((x.ravel() - 0.5) @ mix)[:3]
    contributions = lambda x: jax.nn.relu((x.ravel() - 0.5) @ mix[:, ::2]) + 0.1
    explain = lambda x: xnn_attacked.shares(contributions(x))
    x = jax.random.uniform(jax.random.key(5), (4, 4, 3))

    @jax.jit
    def run(x):
        return xnn_attacked.attack(
            name,
            fn,
            explain,
            lambda z: jnp.sum(contributions(z)),
            x,
            radius=0.05,
            steps=5,
            beta=20.0,
            key=KEY,
        )

    found = run(x)
    assert np.max(np.abs(found.x - x)) <= 0.05 + 1e-6
    assert np.argmax(fn(found.x)) == np.argmax(fn(x))
    top = int(np.argmax(explain(x)))
    assert explain(found.x)[top] <= explain(x)[top] + 1e-6
    if name == "top":
        assert explain(found.x)[top] < explain(x)[top] - 0.02
    with pytest.raises(ValueError, match="`attacks` has 'sign': choose from top"):
        xnn_attacked.attack(
            "sign", fn, explain, fn, x, radius=0.1, steps=1, beta=1.0, key=KEY
        )


def test_sheets_agree_on_names_whatever_their_case_and_order():
    first = {"a": "red tail", "b": "beak", "c": "", "d": "sky"}
    second = {"a": "Tail red", "b": "legs", "c": "wing", "d": ""}
    found = xnn_study.agreement(first, second)
    assert found.named == (0.75, 0.75)
    assert found.jaccard == 0.5 and found.same == 0.5
    with pytest.raises(ValueError, match=r"of different panels \(d\)"):
        xnn_study.agreement(first, {k: v for k, v in second.items() if k != "d"})


def test_a_sheet_is_read_and_what_is_none_is_refused(tmp_path, capsys):
    sheet = tmp_path / "answers.csv"
    sheet.write_text(
        "panel,name,sure (1-5),remarks\npanel-001,a beak,5,\npanel-002,,,\n"
    )
    assert xnn_study.read(sheet) == {"panel-001": "a beak", "panel-002": ""}
    xnn_study.main([sheet, sheet])
    assert "named: 50% and 50%" in capsys.readouterr().out
    sheet.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has no columns `panel` and `name`"):
        xnn_study.read(sheet)


def named(weights, x):
    """Two layers with names, three classes of which only two are ever predicted."""
    h = jax.nn.relu(x @ weights)
    h = jax.ad_checkpoint.checkpoint_name(h, "first")
    h = jax.ad_checkpoint.checkpoint_name(h[::2], "second")
    total = jnp.mean(h, axis=(0, 1))
    return jnp.stack([total[0], total[1], -1.0 + 0 * total[0]])


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"methods": ("sraes",)}, "`methods` has 'sraes': choose from srae,"),
        ({"methods": ()}, "`methods` is empty"),
        ({"attacks": ("sign",)}, "`attacks` has 'sign'"),
        ({"features": 1}, "`features` is 1: it must be at least 2"),
        ({"seeds": 0}, "`seeds` is 0: it must be above zero"),
        ({"spread": 0.0}, "`spread` is 0: it must be above zero"),
        ({"layer": "third"}, "`layer` is 'third': choose from first, second"),
        ({"map_at": "third"}, "`map_at` is 'third': choose from first, second"),
        ({"classes": (7,)}, "`classes` has 7, and the network has 3 classes"),
        ({"classes": (2,), "labels": "predicted"}, "has 2, of which no test image is"),
        ({"units": 2}, "`units` is 2: choose more than `features`"),
        ({"maps": 50}, "`maps` is 50, and there are"),
    ],
)
def test_what_means_nothing_is_refused(knobs, message, monkeypatch):
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    network = networks.Network(named, weights, "parts:40", 16)
    monkeypatch.setattr(networks, "load", lambda *_, **__: network)
    config = script.Config(
        data="parts:40", layer="first", train=40, test=24, maps=1, labels="predicted"
    )
    config = dataclasses.replace(config, **knobs)
    with pytest.raises(ValueError, match=message):
        script.check(config)
        setting_up.load(config)


def test_every_configuration_passes_its_own_checks():
    for config in script.CONFIGS.values():
        script.check(config)


def test_a_dead_layer_is_refused(monkeypatch):
    network = networks.Network(named, jnp.zeros((3, 4)), "parts:40", 16)
    monkeypatch.setattr(networks, "load", lambda *_, **__: network)
    config = script.Config(data="parts:40", layer="first", train=40, test=24, maps=1)
    with pytest.raises(ValueError, match="`layer` 'first' has units of mean square 0"):
        setting_up.load(config)
