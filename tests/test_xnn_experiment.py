"""What `experiments.xnn` trains, chooses, refuses, and gives to people to name."""

import csv
import dataclasses
import types

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
    xnn_report,
    xnn_study,
    xnn_training,
)
from experiments import xnn as script
from experiments import xnn_setup as setting_up
from protojax import srae
from protojax.scale import report
from tests import small

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
    real, saves = trainings.checkpoints._write, []

    def stopping(*given):
        saves.append(real(*given))
        if len(saves) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainings.checkpoints, "_write", stopping)
    with pytest.raises(KeyboardInterrupt):
        xnn_training.trained(*args, tmp_path / "stopped")
    monkeypatch.setattr(trainings.checkpoints, "_write", real)
    again = xnn_training.trained(*args, tmp_path / "stopped")
    jax.tree.map(np.testing.assert_array_equal, again.params, through.params)
    assert again.facts["c"].tolist() == [0, 0, 1, 1]
    assert again.facts["seed"].tolist() == [0, 1, 0, 1]
    assert [p.name for p in (tmp_path / "stopped").iterdir()] == ["srae.npz"]
    monkeypatch.setattr(xnn_training, "_round", None)  # it would be called
    read = xnn_training.trained(*args, tmp_path / "stopped")
    jax.tree.map(np.testing.assert_array_equal, read.params, through.params)


def test_only_networks_that_are_not_accepted_are_trained_anew(tmp_path, monkeypatch):
    """Of four, two pass at once, one in the second round, and one never."""
    passes, classes = [[True, False, False, True], [False, True], [False]], []

    def one_round(*given):
        columns, number = given[3], given[6]
        classes.append(columns[:, 0].tolist())
        count = len(columns)
        best = {"kernel": np.full((count, 2), number)}
        done = types.SimpleNamespace(
            best=best, round=np.full(count, 7), diverged=np.full(count, number == 2)
        )
        return done, np.array(passes[number])

    monkeypatch.setattr(xnn_training, "_round", one_round)
    plan = dataclasses.replace(PLAN, rounds=3)
    args = ("srae", tiny(), problem(), [(0,), (1,)], 2, plan, tmp_path)
    found = xnn_training.trained(*args)
    assert classes == [[0, 0, 1, 1], [0, 1], [0]]
    assert found.facts["round"].tolist() == [0, 2, 1, 0]
    assert found.params["kernel"][:, 0].tolist() == [0, 2, 1, 0]
    assert found.facts["accepted"].tolist() == [True, False, True, True]
    assert found.facts["diverged"].tolist() == [False, True, False, False]


def test_what_diverged_is_neither_shown_nor_compared_with(monkeypatch):
    facts = xnn_training._facts(np.array([0, 0, 1, 1]), 2)
    facts["diverged"][:] = [True, False, True, True]
    params = {"readout": {"kernel": np.arange(4.0).reshape(4, 1, 1)}}
    setup = types.SimpleNamespace(classes=(3, 5))
    shown = script.one_each(PLAN, setup, xnn_training.Trained(params, facts))
    # Of the second class all have diverged, which its rows will say.
    assert shown["members"]["readout"]["kernel"].ravel().tolist() == [1, 2]
    assert shown["diverged"].tolist() == [False, True]

    draw = np.random.default_rng(0)
    kept = [{"id": i, "features": np.float32(draw.normal(size=(9, 2)))} for i in "abc"]
    rows = [
        {"id": i, "label": 3, "seed": seed, "stalled": i == "a"}
        for seed, i in enumerate("abc")
    ]
    monkeypatch.setattr(report, "read", lambda _: rows)
    monkeypatch.setattr(report, "arrays", lambda _: kept)
    _, second, third = xnn_report.by_class(["somewhere"])
    features = [one["features"] for one in kept]
    assert second["stability"] == pytest.approx(srae.matched(*features[1:]).mean())
    assert third["stability"] == pytest.approx(second["stability"], rel=1e-5)


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
    xnn_methods.check(("nmf",), z), xnn_methods.check(("pca",), -z)
    with pytest.raises(ValueError, match="has 'nmf', and there are units below zero"):
        xnn_methods.check(("nmf",), -z)


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
    small.slow_among(xnn_attacked.ATTACKS, {"eigenvector", "singular_vector"}),
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


def test_the_kit_has_a_panel_of_each_concept_and_hides_what_it_is_of(tmp_path):
    """Two classes of two x-features, one of which is dead, and one hardly ever seen."""
    draw = np.random.default_rng(0)
    test = {"image": draw.uniform(size=(6, 8, 8, 3)), "id": np.arange(10, 16)}
    test["label"] = np.array([3, 3, 3, 5, 5, 5])
    parts = np.ones((2, 6, 2), np.float32)
    parts[0, :, 1] = 0.0
    parts[1, :, 1] = [0, 0, 0, -1, 12, 0]
    found = xnn_study.Concepts(
        parts=parts,
        top=np.tile(np.arange(4), (2, 2, 1)),
        maps=draw.uniform(size=(2, 2, 4, 3, 3)),
        typical=np.array([0, 3]),
        typical_maps=np.zeros((2, 2, 3, 3)),
    )
    setup = types.SimpleNamespace(classes=(3, 5), test=test)
    xnn_study.write(tmp_path, setup, found, seed=1)
    read = lambda name: list(csv.DictReader((tmp_path / name).read_text().splitlines()))
    key = read("key.csv")
    assert {(line["class"], line["x-feature"]) for line in key} == {
        ("3", "1"),
        ("5", "1"),
    }
    assert all((tmp_path / f"{line['panel']}.png").exists() for line in key)
    sheet = xnn_study.read(tmp_path / "answers.csv")
    assert sheet == dict.fromkeys(["panel-001", "panel-002"], "")
    assert "class" not in (tmp_path / "answers.csv").read_text()
    lines = read("contributions.csv")
    assert [line["image"] for line in lines] == [str(i) for i in range(10, 16)]
    second = [line["x-feature 2 is significant"] for line in lines]
    assert second == ["0", "0", "0", "0", "1", "0"]
    first = [line["x-feature 1 is significant"] for line in lines]
    assert first == ["1", "1", "1", "1", "0", "1"]  # 12 of 13 is nine tenths
    assert "answers.csv" in (tmp_path / "README.md").read_text()


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
        ({"save_every": 0}, "`save_every` is 0: it must be above zero"),
        ({"classes": ()}, "`classes` is empty"),
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


def test_a_class_without_images_to_learn_from_is_refused():
    setting_up.check_learned_from((0, 2), np.array([2, 0, 0]))
    with pytest.raises(ValueError, match="`classes` has 1, .* none to learn from"):
        setting_up.check_learned_from((0, 1), np.array([2, 0, 0]))


def test_a_dead_layer_is_refused(monkeypatch):
    network = networks.Network(named, jnp.zeros((3, 4)), "parts:40", 16)
    monkeypatch.setattr(networks, "load", lambda *_, **__: network)
    config = script.Config(data="parts:40", layer="first", train=40, test=24, maps=1)
    with pytest.raises(ValueError, match="has 3 logits, and the images have labels up"):
        setting_up.load(config)
    with pytest.raises(ValueError, match="`layer` 'first' has units of mean square 0"):
        setting_up.load(dataclasses.replace(config, labels="predicted"))
