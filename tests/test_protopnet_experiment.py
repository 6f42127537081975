"""How `experiments.protopnet` trains: stages, push, prune, resuming to the bit."""

import dataclasses
import functools
import itertools
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from experiments import (
    backbones,
    networks,
    protopnet_analysis,
    protopnet_network,
    protopnet_report,
    protopnet_setup,
    protopnet_studies,
    protopnet_training,
    studies,
)
from protojax import checkpoints
from protojax.scale import report
from tests import squares

KEY = jax.random.key(0)


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """A stage that is taken up again finds its program, as it was compiled before."""
    names = ("jax_disable_most_optimizations", "jax_compilation_cache_dir")
    names += ("jax_persistent_cache_min_compile_time_secs",)
    before = {name: jax.config.values[name] for name in names}
    folder = str(tmp_path_factory.mktemp("programs"))
    for name, value in zip(names, (True, folder, 0.0), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return squares.config(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """A training from begin to end, its folder, and copies of that made on the way."""
    setup = protopnet_setup.set_up(config)
    folder, cuts = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("cuts")
    write, count = checkpoints._write, itertools.count(1)

    def copying(manager, *args):
        write(manager, *args)
        manager.wait_until_finished()
        if (number := next(count)) in (4, 7, 11):
            shutil.copytree(folder, cuts / str(number))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "_write", copying)
        trained = protopnet_setup.fitted(config, setup, folder)
    return setup, trained, folder, cuts


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def states(setup, config, folder):
    """What every stage left behind, in order."""
    out, network = [], setup.learner
    for here in sorted(pathlib.Path(folder).iterdir()):
        notes = checkpoints.config(here)
        head = network.head.clone(owners=tuple(notes["owners"]))
        begin = functools.partial(
            protopnet_training.begin,
            network._replace(head=head),
            config,
            setup.examples,
        )
        out.append((here.name[3:], checkpoints.restore(here, jax.eval_shape(begin))))
    return out


@pytest.mark.parametrize(
    "cut",  # in joint, after push, in last
    [
        pytest.param("4", marks=pytest.mark.slow),
        "7",
        pytest.param("11", marks=pytest.mark.slow),
    ],
)
def test_a_training_stopped_anywhere_goes_on_to_the_bit(
    config, whole, cut, tmp_path, monkeypatch
):
    setup, _, folder, cuts = whole
    shutil.copytree(cuts / cut, tmp_path / "again")
    write = checkpoints._write

    def stopping(manager, folder, state, config):
        write(manager, folder, state, config)
        if "finished" in config:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "_write", stopping)
    with pytest.raises(KeyboardInterrupt):
        protopnet_setup.fitted(config, setup, tmp_path / "again")
    found, expected = (states(setup, config, f) for f in (tmp_path / "again", folder))
    assert [kind for kind, _ in found] == [kind for kind, _ in expected][: len(found)]
    equal(found[-1], expected[len(found) - 1])


def test_dossier_8_each_stage_changes_what_it_trains_and_nothing_else(config, whole):
    setup, _, folder, _ = whole
    found = states(setup, config, folder)
    kinds = ["warm", "joint", "push", "last", "prune", "last"]
    assert [kind for kind, _ in found] == kinds
    changed = {
        "warm": {"add_on_layers", "prototypes"},
        "joint": {"backbone", "add_on_layers", "prototypes"},
        "push": {"prototypes"},
        "last": {"last_layer"},
    }
    for (_, before), (kind, after) in zip(found, found[1:]):
        if kind == "prune":
            continue
        parts = [
            {"backbone": s.params["backbone"], **s.params["head"]}
            for s in (before, after)
        ]
        for name in parts[0]:
            same = jax.tree.map(np.array_equal, parts[0][name], parts[1][name])
            assert all(jax.tree.leaves(same)) == (name not in changed[kind]), (
                kind,
                name,
            )


def latent_patches(setup, weights):
    """Latent maps of all training images, and their labels."""
    network = setup.network
    batches = list(setup.examples.in_order())
    latent = jax.jit(jax.vmap(network.apply("latent"), (None, 0)))
    maps = [np.asarray(latent(weights, batch["image"])) for batch in batches]
    return np.concatenate(maps), np.concatenate([b["label"] for b in batches])


def test_dossier_8_after_a_push_every_prototype_is_a_patch_of_its_class(config, whole):
    setup, trained, folder, _ = whole
    for kind, state in states(setup, config, folder)[2:4]:  # the last layer keeps it
        weights = state.params, state.extra
        maps, labels = latent_patches(setup, weights)
        vectors = np.asarray(state.params["head"]["prototypes"])
        for p, owner in zip(vectors, setup.network.head.owners, strict=True):
            own = maps[labels == owner]
            assert np.sum((own - p) ** 2, axis=-1).min() < 1e-10, kind
    found = protopnet_network.nearest(
        setup.network, weights, setup.examples.in_order(), k=1, own=True
    )
    assert float(found.distance.max()) < 1e-10
    assert trained.history[2]["moved"] > 0


def test_what_is_left_after_pruning_is_a_network_of_its_own(whole):
    setup, trained, folder, _ = whole
    test = setup.examples.test
    logits = networks.mapped(trained.network.apply())
    told = logits(trained.weights, test["image"]).argmax(1)
    assert trained.history[-1]["accuracy"] == np.mean(told == test["label"])
    kept = len(trained.network.head.owners)
    assert trained.history[-2]["kept"] == kept <= 6
    assert trained.weights[0]["head"]["last_layer"].shape == (kept, 3)


@pytest.mark.slow
def test_a_trained_network_is_looked_at_and_reported(config, whole, tmp_path):
    setup, trained, *_ = whole
    few = dataclasses.replace(config, attacked=4)
    near = protopnet_analysis.near(few, setup, trained)
    studies.run(protopnet_studies.of(few, setup, trained, near), few, tmp_path)
    protopnet_report.write(few, tmp_path, setup, trained, near)
    rows = [report.read(tmp_path / name) for name in ("", "prototypes", "elsewhere")]
    right = np.mean([row["correct"] for row in rows[0]])
    assert right == pytest.approx(trained.history[-1]["accuracy"])
    assert [row["class"] for row in rows[1]] == list(trained.network.head.owners)
    assert max(row["distance"] for row in rows[1]) < 1e-10 and len(rows[2]) == 4
    summary = json.loads((tmp_path / "summary.json").read_text())
    values = {number["value"] for number in summary["numbers"]}
    assert {"correct", "neighbors", "pac"} <= values and "purity" not in values
    page = (tmp_path / "report.html").read_text()
    assert "this looks like that" in page.lower() and page.count("<img") == 5


def test_an_ensemble_adds_up_the_logits_of_finished_runs(config, whole, tmp_path):
    setup, trained, folder, _ = whole
    (tmp_path / "training").symlink_to(folder, target_is_directory=True)
    knobs = json.dumps({"config": dataclasses.asdict(config)})
    (tmp_path / "config.json").write_text(knobs)
    (tmp_path / "report.html").touch()
    twice = dataclasses.replace(config, also=(tmp_path, tmp_path))
    logits = networks.mapped(trained.network.apply())
    one = logits(trained.weights, setup.examples.test["image"])
    both = protopnet_setup.others(twice, setup)
    np.testing.assert_allclose(both, 2 * one, rtol=1e-5)


def test_a_checkpoint_of_another_backbone_is_refused(config, whole):
    _, _, folder, _ = whole
    other = dataclasses.replace(config, depth=5)
    with pytest.raises(
        ValueError, match="05-last does not fit `like`: .*add_on_layers"
    ):
        protopnet_setup.fitted(other, protopnet_setup.set_up(other), folder)
    setup = protopnet_setup.set_up(config)
    fn = lambda weights, x: checkpoint_name(x @ weights["other"], "map")
    backbone = backbones.of_layer(fn, {"other": jnp.ones((3, 6))}, "map", 8)
    setup = setup._replace(learner=setup.learner._replace(backbone=backbone))
    with pytest.raises(ValueError, match="05-last does not fit `like`: .*backbone"):
        protopnet_setup.fitted(config, setup, folder)


def test_a_class_without_images_is_refused_at_the_push(config, whole):
    setup, *_ = whole
    state = protopnet_training.begin(setup.network, config, setup.examples)
    batches = list(setup.examples.in_order())
    without = [
        {name: values[b["label"] != 1] for name, values in b.items()} for b in batches
    ]
    examples = setup.examples._replace(in_order=lambda: iter(without))
    with pytest.raises(ValueError, match="no image to be pushed to, .* classes 1:"):
        protopnet_training.pushed(setup.network, state, examples)


def test_pruning_everything_is_refused(config, whole):
    setup, trained, *_ = whole
    state = protopnet_training.begin(setup.network, config, setup.examples)
    lost = [
        {**b, "label": np.full_like(b["label"], 2)} for b in setup.examples.in_order()
    ]
    examples = setup.examples._replace(in_order=lambda: iter(lost))
    network = setup.network._replace(
        head=setup.network.head.clone(owners=(0, 0, 0, 1, 1, 1))
    )
    with pytest.raises(ValueError, match="`needed` is 1: no prototype has so many"):
        protopnet_training.pruned(network, state, examples, config)
    del trained
