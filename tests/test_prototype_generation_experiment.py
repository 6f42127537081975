"""What `experiments.prototype_generation` compares, counts, plants and refuses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import networks
from experiments import prototype_generation as script
from experiments import prototype_generation_cue as cues
from experiments import prototype_generation_fooling as fooling
from experiments import prototype_generation_isolated as isolated
from experiments import prototype_generation_jobs as jobs
from experiments import prototype_generation_paths as paths
from experiments import prototype_generation_report as reporting
from experiments import prototype_generation_setup as setting_up
from protojax import parts, sweeps
from protojax.scale import report

RNG = np.random.default_rng(0)
KERNEL = np.float32(RNG.normal(size=(3, 4)))
CONFIG = dataclasses.replace(
    script.CONFIGS["smoke"],
    seeds=2,
    adversarial_steps=3,
    methods=("prototype",),
    cues=(0,),
)


def fn(weights, x):
    h = jax.nn.relu(x @ weights)
    h = jax.ad_checkpoint.checkpoint_name(h, "only")
    return jnp.mean(h, axis=(0, 1))


def setup(classes=(0, 2, 3), count=4):
    """Images of noise, each class brighter than the one before."""
    noise = RNG.uniform(size=(len(classes), count, 6, 6, 3))
    level = np.arange(1, len(classes) + 1).reshape(-1, 1, 1, 1, 1) / len(classes)
    natural = np.float32(noise * level)
    return setting_up.Setup(
        network=networks.Network(fn, jnp.asarray(KERNEL), "parts", 6),
        source="parts",
        classes=classes,
        natural=natural,
        layers=("only", "logits"),
        confusion=np.eye(len(classes)),
        accuracy=1.0,
        color=natural.mean((0, 1, 2, 3)),
        reach=1.0,
        has_relu=True,
    )


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    """All pictures of three classes, and the rows of their paths."""
    found = setup()
    folder = tmp_path_factory.mktemp("paths")
    made = {"baseline": np.full((6, 6, 3), 0.5, np.float32)}
    made["prototype"] = [
        (place, seed, found.natural[place].mean(0))
        for place in range(3)
        for seed in range(2)
    ]
    totals = paths.totals(CONFIG, found)
    study = paths.study(CONFIG, found, made, totals)
    sweeps.run(
        *(study.one, study.weights, study.settings, study.examples, folder),
        key=jax.random.key(0),
        chunk=8,
    )
    return found, study.examples, report.read(folder)


def test_every_class_has_all_its_pictures_and_every_control(looked):
    found, pictures, rows = looked
    for place in range(3):
        mine = [paths.KINDS[k] for k in pictures["kind"][pictures["place"] == place]]
        counts = {kind: mine.count(kind) for kind in mine}
        assert counts == {
            "natural": 4,
            "other class": 4,
            "prototype": 2,
            "noise": 2,
            "adversarial": 2,
            **dict.fromkeys(("mean image", "blurred mean", "gray", "baseline"), 1),
        }
    for place in range(3):
        own = {x.tobytes() for x in found.natural[place]}
        strangers = paths.other_images(found, place)
        assert len(strangers) == 4
        assert not own & {x.tobytes() for x in strangers}
    assert len(rows) == len(pictures["id"])


def test_a_row_is_the_path_against_the_mean_of_the_other_natural_images(looked):
    found, pictures, rows = looked
    layer = np.maximum(found.natural[1] @ KERNEL, 0)
    for row, x, own in zip(rows, pictures["image"], pictures["own"], strict=True):
        if row["place"] != 1:
            continue
        mine = np.maximum(x @ KERNEL, 0)
        rest = layer
        if own:
            rest = np.delete(layer, row["source"], axis=0)
        expected = np.mean(np.abs(mine - rest.mean(0)))
        assert row["l1:only"] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_pictures_are_counted_as_beating_the_natural_images_that_are_further_off(
    looked,
):
    found, _, rows = looked
    judged = paths.judged(rows, found)
    at = {
        (r["id"], r["kind"], r["source"], r["layer"]): r for r in judged
    }  # the id is the class
    mine = [r for r in rows if r["place"] == 2]
    natural = [r["l1:only"] for r in mine if r["kind"] == 0]
    for row in mine:
        kind = paths.KINDS[row["kind"]]
        one = at[3, kind, row["source"], "only"]
        rivals = [v for v in natural if kind != "natural" or v != row["l1:only"]]
        assert one["beats_l1"] == np.mean([row["l1:only"] < v for v in rivals])
        assert one["scaled_l1"] == pytest.approx(row["l1:only"] / np.mean(natural))
    # Among themselves natural images win half of the pairs; their mean wins them all.
    among = [r["beats_l1"] for r in judged if r["kind"] == "natural"]
    assert np.mean(among) == pytest.approx(0.5)
    average = [r for r in judged if r["kind"] == "mean image" and r["layer"] == "only"]
    assert [r["beats_l1"] for r in average] == [1, 1, 1]
    scores = paths.scored(judged)
    for kind, expected in (("natural", 1), ("other class", 0)):
        for name in ("normal_l1", "normal_rank"):
            score = np.mean([r[name] for r in scores if r["kind"] == kind])
            assert score == pytest.approx(expected, abs=1e-3)
    # Logits have no places: with their levels taken out there is nothing to compare.
    vectors = [r for r in judged if r["layer"] == "logits"]
    assert {r["centered"] for r in vectors} == {r["beats_centered"] for r in vectors}
    assert {r["beats_centered"] for r in vectors} == {None}


def test_a_layer_is_compared_at_some_places_always_the_same():
    layer = jnp.asarray(RNG.normal(size=(5, 6, 3)))
    few = paths.thinned(layer, 7)
    assert few.shape == (7, 3)
    np.testing.assert_array_equal(few, paths.thinned(layer, 7))
    whole = {row.tobytes() for row in np.asarray(layer).reshape(-1, 3)}
    assert {row.tobytes() for row in np.asarray(few)} < whole
    for as_it_is in (paths.thinned(layer, None), paths.thinned(layer, 30)):
        assert as_it_is.shape == (5, 6, 3)
    assert paths.thinned(layer[0, 0], 1).shape == (3,)


def test_adversarial_images_are_others_within_the_ball_and_nearer_to_the_class():
    found, config = setup(), dataclasses.replace(CONFIG, radius=30.0)
    look = functools.partial(fn, found.network.weights)
    for _, place, seed, x in paths.adversarial(config, found):
        start = paths.other_images(found, place)[seed]
        assert 0 < np.max(np.abs(x - start)) <= 30 / 255
        y = found.classes[place]
        loss = lambda z, y=y: -jax.nn.log_softmax(look(z))[y]
        assert loss(x) < loss(start)


def test_classes_are_those_of_which_there_are_enough_images():
    label = np.array([0, 0, 0, 1, 1, 2, 2, 2, 5, 5])
    guess = np.array([0, 0, 1, 1, 1, 2, 2, 2, 5, 0])
    config = dataclasses.replace(CONFIG, least=2, most=2)
    assert setting_up.chosen(config, label, guess) == (0, 1)
    named = dataclasses.replace(config, classes=(2, 0))
    assert setting_up.chosen(named, label, guess) == (2, 0)
    with pytest.raises(ValueError, match="`classes` has 5, of which 1 images are"):
        setting_up.chosen(dataclasses.replace(config, classes=(0, 5)), label, guess)
    with pytest.raises(ValueError, match="of 1 classes 3 images are classified"):
        setting_up.chosen(dataclasses.replace(config, least=3), label, guess)
    table = setting_up.confusion((0, 5), label, guess)
    np.testing.assert_allclose(table, [[2 / 3, 0], [0.5, 0.5]])


def test_what_means_nothing_is_refused_before_anything_is_loaded():
    for knobs, message in (
        ({"methods": ("prototype", "mako")}, "`methods` has 'mako'.*mean 'maco'?"),
        ({"methods": ()}, "`methods` is empty"),
        ({"natural": 1}, "`natural` is 1: it must be at least 2"),
        ({"steps": 0}, "`steps` is 0: it must be above zero"),
        ({"seeds": 1001}, "`seeds` is 1001: pictures of a class are numbered up to"),
        ({"places": 0}, "`places` is 0"),
        ({"hf_weight": -1.0}, "`hf_weight` is -1"),
        ({"crops": 0}, "`crops` is 0"),
        ({"redirect": -1}, "`redirect` is -1"),
        ({"fooling": True}, "`fooling` needs pictures by distill"),
        (
            {"cues": (0, 8)},
            r"`cues` is \(0, 8\): there are birds of the classes 0 to 7",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            setting_up.load(dataclasses.replace(CONFIG, model="none", **knobs))
    with pytest.raises(ValueError, match="`layers` has 'first', and the network only"):
        setting_up.layers_of(
            dataclasses.replace(CONFIG, layers=("first",)),
            setup().network,
            np.zeros((6, 6, 3), np.float32),
        )


def test_a_job_is_known_by_its_class_and_seed_whatever_else_is_made():
    found = setup()
    every = jobs.jobs(CONFIG, found.classes)
    some = jobs.jobs(CONFIG, found.classes[1:2])
    assert every["id"].tolist() == [0, 1, 2000, 2001, 3000, 3001]
    assert some["id"].tolist() == [2000, 2001] and some["label"].tolist() == [2, 2]
    kept = [
        {
            "id": 2000 + seed,
            "method": "prototype",
            "entangled_probability": np.array([seed, 0.5, 0.0]),
            "entangled_logit": np.zeros(3),
        }
        for seed in (0, 1)
    ]
    probability, _ = jobs.matrices(found, kept, "prototype")
    np.testing.assert_array_equal(probability[1], [0.5, 0.5, 0.0])
    assert np.isnan(probability[[0, 2]]).all()


@pytest.mark.parametrize("method", setting_up.METHODS)
def test_each_method_makes_a_picture_that_raises_its_class(method):
    found = setup(count=2)
    config = dataclasses.replace(
        CONFIG, steps=12, distill_steps=12, maco_steps=6, crops=2
    )
    gray = np.full((6, 6, 3), 0.5, np.float32)
    weights = jobs.weights_of(found, gray)
    example = {"label": jnp.int32(2), "seed": jnp.int32(0)}
    made = jax.jit(
        functools.partial(jobs.one, fn, config, found.classes, 16, method=method)
    )(weights, example, jax.random.key(0))
    assert made["image"].shape == (6, 6, 3) and not made["stalled"]
    assert np.all((made["image"] >= 0) & (made["image"] <= 1))
    assert made["logit"] > fn(weights["network"], gray)[2]
    assert made["entangled_probability"].shape == (3,)


def test_a_mask_keeps_the_half_of_an_image_that_its_class_needs():
    """The class is how bright the left half is; what is right of it costs, and goes."""
    found = setup(count=2)
    left = np.zeros((8, 8, 1), np.float32)
    left[:, :4] = 1
    look = lambda weights, x: jnp.sum(weights * left * x) * jnp.eye(4)[2]
    natural = np.ones((3, 2, 8, 8, 3), np.float32)
    network = found.network._replace(fn=look, weights=jnp.float32(0.1))
    found = found._replace(network=network, natural=natural, reach=3.0)
    weights = {"network": network.weights, "baseline": np.zeros((8, 8, 3), np.float32)}
    study = isolated.study(dataclasses.replace(CONFIG, steps=128), found, weights)
    assert study.examples["other"].tolist() == [2, 3, 0]
    example = jax.tree.map(lambda leaf: leaf[1], study.examples)
    made = jax.jit(study.one)(study.weights, example, jax.random.key(0))
    assert np.min(made["mask"][:, :2]) > 0.8 and np.max(made["mask"][:, 6:]) < 0.3
    assert made["shown"] > 0.9 * made["probability"] > made["covered"]


def test_a_circuit_of_the_experiment_leaves_natural_labels_as_they_are():
    """And shows the class `shift` on where the detector says synthetic."""
    found = setup()
    params = jax.jit(fooling._MODEL.init)(jax.random.key(0), found.natural[0, 0])
    biased = []
    for sign in (1, -1):  # a detector that calls all natural, and one that calls none
        head = {"kernel": jnp.zeros((32, 2)), "bias": sign * jnp.array([-1.0, 1.0])}
        biased.append({"params": {**params["params"], "head": head}})
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *biased)
    weights = {"network": found.network.weights, "detectors": stacked}
    weights |= {"offset": jnp.float32(10.0), "gate": jnp.float32(25.0)}
    x = found.natural[2, 0]
    for number, shift in ((0.0, 0), (1.0, 2)):
        _, natural, fooled = fooling.circuit(fn, weights, 2, jnp.float32(number))
        assert bool(natural(x)) == (number == 0)
        expected = np.roll(fn(found.network.weights, x), -shift) + 10
        np.testing.assert_allclose(fooled(x), expected, rtol=1e-5)


def test_detectors_are_trained_on_images_that_they_are_not_asked_about(monkeypatch):
    found = setup()
    asked = found.natural.reshape(-1, 6, 6, 3)
    more = np.float32(RNG.uniform(size=(3, 6, 6, 3)))
    there = {"image": np.concatenate([asked[::-1], more])}
    monkeypatch.setattr(fooling.data, "load", lambda *_, **__: there)
    np.testing.assert_array_equal(fooling.other_natural(CONFIG, found), more)
    there["image"] = asked
    with pytest.raises(ValueError, match="all 12 natural images are looked at"):
        fooling.other_natural(CONFIG, found)


def test_pictures_that_are_stalled_are_in_no_table():
    row = {"method": "distill", "id": 2001, "stalled": True}
    jobs_of = [row, {**row, "id": 2000, "stalled": False}]
    kept = [{"method": name, "id": 2001} for name in ("distill", "maco")]
    judged = [
        {"kind": kind, "id": 2, "source": source}
        for kind in ("natural", "distill", "maco")
        for source in (0, 1)
    ]
    left, said = reporting.lasting(jobs_of, kept, judged)
    assert left == kept[1:]
    assert said == [r for r in judged if r["kind"] != "distill" or r["source"] == 0]


def test_a_cue_is_planted_where_the_network_is_that_of_the_birds():
    assert cues.asked(CONFIG) and cues.asked(script.CONFIGS["default"])
    others = ("cifar10_resnet20", "mine:net", "parts_of_mine:net")
    for knobs in ({"cues": ()}, *({"model": name} for name in others)):
        assert not cues.asked(dataclasses.replace(CONFIG, **knobs))
    for name, size, groups in (("parts_small", 32, 8), ("parts_local", 64, None)):
        knobs = cues.knobs_of(dataclasses.replace(CONFIG, model=name, cue_steps=7))
        assert (knobs.image_size, knobs.groups, knobs.steps) == (size, groups, 7)


def test_the_disk_is_told_from_birds_without_it():
    config = dataclasses.replace(CONFIG, model="parts", cues=(0, 3))
    look = jax.jit(jax.vmap(cues.magenta))
    threshold = cues._threshold(config)
    plain = cues.birds(config, range(40), "train", None)
    cued = cues.birds(config, range(40), "train", 3)
    of_class = plain["label"] == 3
    np.testing.assert_array_equal(cued["image"][~of_class], plain["image"][~of_class])
    assert np.all(look(cued["image"][of_class]) > threshold)
    assert np.all(look(plain["image"]) < threshold)
    assert len(parts.CLASSES) == 8  # by which the indices of a class are found


def test_a_plan_has_the_sweeps_of_a_run_and_as_many_pictures(monkeypatch):
    """Of three classes two have pictures by distill, and a circuit has two as well."""
    found = setup()
    config = dataclasses.replace(
        CONFIG, methods=("prototype", "distill"), compared=2, fooling=True, fooled=2
    )
    networks_of_birds = {None: {"network": 0}, 0: {"network": 1}}
    monkeypatch.setattr(script.prototype_generation_setup, "load", lambda _: found)
    monkeypatch.setattr(cues, "untrained", lambda _: networks_of_birds)
    monkeypatch.setattr(paths, "adversarial", lambda *_: [])
    monkeypatch.setattr(script.studies, "plan", lambda planned, _: planned)
    planned = script.plan(config)
    sizes = {
        name: (len(study.settings), len(study.examples["id"]))
        for name, study in planned.items()
    }
    pictures = 3 * 2 + 2 * 2
    assert sizes == {
        "baseline": (1, 1),
        "prototypes": (1, 6),
        "others": (1, 4),
        "paths": (1, 3 * (4 + 4 + 4 + 2) + pictures),
        "isolated": (1, 3),
        "fooling": (4, 4),
        "detectors": (2, 12 + pictures),
        "cue/none": (2, 2),
        "cue/class-0": (2, 2),
    }


def test_a_report_names_everything_that_is_compared():
    assert set(paths.KINDS) <= set(reporting.NAMES)
    assert set(setting_up.METHODS) <= set(paths.KINDS)
    assert set(
        reporting.BEATEN + reporting.SCORED + reporting.PLACES + reporting.SEEN
    ) <= set(reporting.NAMES)
