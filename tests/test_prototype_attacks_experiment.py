"""What `experiments.prototype_attacks` does to an image, and how it counts."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import (
    backbones,
    protopnet_data,
    protopnet_network,
    protopnet_setup,
    protopnet_training,
    prototype_attacks,
    prototype_attacks_report,
    prototype_attacks_studies,
    remedies,
    studies,
    truths,
)
from protojax import attacks, data, objectives, parts, prototypes
from protojax.models import protopnet
from tests.squares import pretended, trained

KEY = jax.random.key(0)
SIDE, GRID, CLASSES = 16, 4, 3
BALL = {"radius": 8 / 255, "step_size": 2 / 255}
CONFIG = dataclasses.replace(
    prototype_attacks.CONFIGS["smoke"], steps=3, tries=3, shown=2
)


def features(weights, x):
    """Means of blocks, mixed and bent: a map of 4 x 4 places."""
    cells = x.reshape(GRID, SIDE // GRID, GRID, SIDE // GRID, 3).mean((1, 3))
    return jnp.tanh(4 * (cells - 0.5) @ weights["mix"])


def network():
    """Six prototypes of three classes, untrained."""
    mix = np.random.default_rng(3).normal(size=(3, 8)).astype(np.float32)
    shape = (GRID, GRID, 8)
    backbone = backbones.Backbone(features, None, {"mix": mix}, {}, SIDE, "map", shape)
    head = protopnet.PrototypeHead(CLASSES, prototypes.owners(6, CLASSES), 4)
    return protopnet_network.Network(backbone, head)


NETWORK = network()
WEIGHTS = trained(NETWORK).weights
SIMILARITY = jax.jit(functools.partial(NETWORK.apply("similarities"), WEIGHTS))
LOGITS = jax.jit(functools.partial(NETWORK.apply(), WEIGHTS))


@pytest.fixture(scope="module")
def setup():
    """The network, and images that it is right about."""
    images = np.random.default_rng(0).uniform(0.1, 0.9, (12, SIDE, SIDE, 3))
    images = images.astype(np.float32)
    labels = np.array([int(LOGITS(x).argmax()) for x in images], np.int32)
    batch = {"image": images, "label": labels, "id": np.arange(12)}
    examples = protopnet_data.Examples(
        batches=lambda start: iter([batch] * (3 - start)),
        in_order=lambda: iter([{**batch, "label": np.arange(12) % CLASSES}]),
        test=batch,
        epoch=1,
    )
    names = ("red", "green", "blue")
    return protopnet_setup.Setup(NETWORK, examples, NETWORK, examples, names, {})


@pytest.fixture(scope="module")
def examples(setup):
    """Six of the images, the upper half a head and the lower right a stomach."""
    chosen = {name: values[:6] for name, values in setup.examples.test.items()}
    head, stomach = np.zeros((2, 6, SIDE, SIDE), bool)
    head[:, : SIDE // 2] = True
    stomach[:, SIDE // 2 :, SIDE // 2 :] = True
    return {**chosen, "head": head, "stomach": stomach}


@functools.cache
def program(one, **setting):
    look = functools.partial(one, NETWORK, CONFIG, **setting, **BALL)
    return jax.jit(jax.vmap(look, (None, 0, 0)))


def swept(one, examples, **setting):
    """Rows of a function of one example, as a sweep would have them."""
    keys = jax.random.split(KEY, len(examples["id"]))
    row = program(one, **setting)(WEIGHTS, examples, keys)
    return jax.tree.map(np.asarray, row)


def aims(examples):
    of = functools.partial(prototype_attacks_studies.aimed, NETWORK)

    def one(example):
        return of(example, SIMILARITY(example["image"]), example["label"])

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(examples))


def test_the_prototype_is_of_the_class_and_if_possible_on_the_head(examples):
    aim, owners = aims(examples), np.asarray(NETWORK.head.owners)
    lower = np.zeros((GRID, GRID), bool)
    lower[GRID // 2 :, GRID // 2 :] = True
    for i, x in enumerate(examples["image"]):
        a = np.asarray(SIMILARITY(x))
        own = np.flatnonzero(owners == examples["label"][i])
        peaks = a.reshape(-1, 6).argmax(0) // GRID  # the row each is found in
        on_head = [j for j in own if peaks[j] < GRID // 2]
        wanted = max(on_head or own, key=lambda j: a[..., j].max())
        assert aim.prototype[i] == wanted
        assert aim.on_head[i] == bool(on_head)
        np.testing.assert_array_equal(aim.target[i], lower & ~aim.source[i])
    assert aim.source.any() and aim.on_head.any() and not aim.on_head.all()


def test_where_nothing_is_known_the_target_is_the_quarter_where_it_is_least(examples):
    blind = {k: v for k, v in examples.items() if k not in ("head", "stomach")}
    aim = aims(blind)
    assert aim.on_head.all()
    ends = (slice(0, 2), slice(2, 4))
    for i, x in enumerate(examples["image"]):
        a = np.asarray(SIMILARITY(x))[..., aim.prototype[i]]
        where = min(((u, v) for u in ends for v in ends), key=lambda at: a[at].sum())
        quarter = np.zeros((GRID, GRID), bool)
        quarter[where] = True
        np.testing.assert_array_equal(aim.target[i], quarter & ~aim.source[i])


def test_only_heads_that_can_be_moved_are_attacked(examples, tmp_path):
    few = {**examples, "stomach": examples["stomach"].copy()}
    few["stomach"][0] = False
    aim, blind = aims(few), {**few, "head": few["head"] & False}
    there = np.flatnonzero(aim.on_head & aim.target.any((1, 2)))
    assert 0 < len(there) < np.sum(aim.on_head)
    for name, of, expected in (("a", few, there[:4]), ("b", blind, [0])):
        found = prototype_attacks.aims(CONFIG, trained(NETWORK), of)
        studies.run({"aims": found}, CONFIG.network, tmp_path / name)
        heads = prototype_attacks.worth(CONFIG, of, tmp_path / name)
        np.testing.assert_array_equal(heads["id"], expected)


def test_a_head_on_the_stomach_is_judged_by_the_image_that_comes_out(examples):
    row = swept(prototype_attacks_studies.head_on_stomach, examples, attack="search")
    assert not row["stalled"].all()
    for i in np.flatnonzero(~row["stalled"]):
        one = {name: values[i] for name, values in row.items()}
        change = one["perturbed"] - examples["image"][i]
        mask = np.asarray(prototypes.cell_pixels(one["target"], (SIDE, SIDE)))
        assert np.abs(change).max() <= 8 / 255 + 1e-6
        assert not change[~mask].any() and change[mask].any()
        before, after = (
            np.asarray(SIMILARITY(z))[..., one["prototype"]]
            for z in (examples["image"][i], one["perturbed"])
        )
        arrived = after[one["target"]].max() >= after.max()
        kept = int(LOGITS(one["perturbed"]).argmax()) == one["label"]
        assert one["left"] == (after.max() > after[one["source"]].max())
        assert one["arrived"] == arrived and one["label_kept"] == kept
        assert one["success"] == (arrived and after.max() >= before.max() and kept)
        assert one["target_after"] >= one["target_before"]
    for name in ("head", "stomach"):  # nothing to be moved, or nowhere to move it
        nowhere = {**examples, name: examples[name] & False}
        row = swept(prototype_attacks_studies.head_on_stomach, nowhere, attack="search")
        assert row["stalled"].all()


def test_random_signs_stay_within_the_target(examples):
    row = swept(prototype_attacks_studies.head_on_stomach, examples, attack="random")
    change = row["perturbed"] - examples["image"]
    for target, each in zip(row["target"], change, strict=True):
        mask = np.asarray(prototypes.cell_pixels(target, (SIDE, SIDE)))
        assert not each[~mask].any() and np.abs(each).max() <= 8 / 255 + 1e-6


@jax.jit
def moved(x, j, target, source, key):
    objective = objectives.prototype_moved(
        SIMILARITY, prototype=j, target=target, source=source
    )
    mask = prototypes.cell_pixels(target, (SIDE, SIDE))
    key = jax.random.split(key, 1)[0]
    return attacks.pgd(objective, x, mask=mask, key=key, steps=CONFIG.steps, **BALL).x


def box(a, margin):
    crop = prototypes.high_crop(prototypes.enlarge(a, (SIDE, SIDE)))
    return prototypes.crop_cells(crop, (GRID, GRID), (SIDE, SIDE), margin=margin)


def by_the_authors_code(x, key, *, tries, margin):
    """Their loop, prototype by prototype, with the source that is overwritten."""
    judged_on, found = SIMILARITY(x), []
    maps = judged_on
    order = np.argsort(-np.asarray(maps.max((0, 1))), kind="stable")[:tries]
    for j, each in zip(order, jax.random.split(key, tries), strict=True):
        source = box(maps[..., j], margin)
        z = moved(x, j, prototypes.closed(~source), source, each)
        after = np.asarray(SIMILARITY(z))
        a, where = after[..., j], np.asarray(box(judged_on[..., j], margin))
        found.append((a.max() > a[where].max(), int(LOGITS(z).argmax())))
        if found[-1][0]:
            return found[-1]
        judged_on = jnp.asarray(after)
    return found[0]


@pytest.mark.parametrize("protocol", ["april", "may"])
def test_the_literal_protocol_is_the_loop_of_the_authors_code(examples, protocol):
    few = {name: values[:3] for name, values in examples.items()}
    row = swept(
        *(prototype_attacks_studies.literal, few), attack="search", protocol=protocol
    )
    tries, margin = {"april": (1, 0), "may": (CONFIG.tries, 1)}[protocol]
    assert not row["stalled"].all()
    keys = jax.random.split(KEY, 3)
    for i in np.flatnonzero(~row["stalled"]):
        x = jnp.asarray(few["image"][i])
        success, label = by_the_authors_code(x, keys[i], tries=tries, margin=margin)
        assert row["success"][i] == success
        assert row["label_kept"][i] == (label == few["label"][i])


def test_a_prototype_disappears_by_its_own_pixels(examples):
    row = swept(prototype_attacks_studies.disappearance, examples, attack="search")
    assert (row["after"] < row["before"]).all()
    change = row["perturbed"] - examples["image"]
    assert not change[~row["source"]].any()
    similar = np.stack([SIMILARITY(z).max((0, 1)) for z in row["perturbed"]])
    own = similar[np.arange(6), row["prototype"]]
    np.testing.assert_allclose(row["after"], own, rtol=1e-5)
    np.testing.assert_array_equal(row["rank"], 1 + (similar > own[:, None]).sum(1))
    np.testing.assert_array_equal(row["gone"], row["rank"] > CONFIG.shown)


def test_robust_images_are_told_right_and_withstand_ten_steps(examples):
    wrong = {**examples, "label": (examples["label"] + np.arange(6) % 2) % CLASSES}
    row = swept(prototype_attacks_studies.accuracy, wrong)
    np.testing.assert_array_equal(row["clean"], np.arange(6) % 2 == 0)
    assert not np.any(row["robust"][1::2])


def test_adversarial_training_takes_the_step_of_a_linear_network(setup):
    # For linear logits a signed step of twice the radius or more ends in the corner of
    # the ball that the signs of the weights name, wherever it began.
    kernel = np.random.default_rng(1).normal(size=(SIDE, SIDE, 3, 2)) / 50

    class Linear:
        def apply(self):
            return lambda weights, x: jnp.einsum("hwc,hwck->k", x, weights[0])

    prepare = remedies.adversarial(radius=0.05, step_size=0.1)
    batch = {k: jnp.asarray(v[:3]) for k, v in setup.examples.test.items()}
    batch["label"] = jnp.array([0, 1, 0])
    images = prepare(Linear(), (jnp.float32(kernel), {}), batch, KEY)
    away = np.sign(kernel[..., 1] - kernel[..., 0])
    for z, x, y in zip(images, batch["image"], batch["label"], strict=True):
        expected = np.clip(x + 0.05 * away * (1 if y == 0 else -1), 0, 1)
        np.testing.assert_allclose(z, expected, atol=1e-6)
    free = remedies.adversarial(radius=0.05, step_size=0.0625)
    batch["image"] = batch["image"].at[:, :2].set(1.0)
    change = np.asarray(free(NETWORK, WEIGHTS, batch, KEY) - batch["image"])
    assert np.abs(change).max() <= 0.05 + 1e-6
    assert change[:, :2].max() <= 0 and (change != 0).mean() > 0.9


def test_adversarial_training_goes_on_with_the_prototypes_that_pruning_leaves(setup):
    config = dataclasses.replace(CONFIG.network, needed=3)
    state = protopnet_training.begin(NETWORK, config, setup.examples)
    network, state, log = protopnet_training.pruned(
        NETWORK, state, setup.examples, config
    )
    assert 0 < log["kept"] < log["of"]
    prepare = prototype_attacks.prepared(CONFIG, "adversarial")
    after, log = protopnet_training.trained(
        *(network, state, setup.examples, config, ("last", 1)),
        save=pytest.fail,
        prepare=prepare,
    )
    assert after.step == 1 and np.isfinite(log["train_cross_entropy"])
    votes = (one.params["head"]["last_layer"] for one in (state, after))
    assert np.any(np.subtract(*votes))


def test_heads_and_stomachs_of_the_embedded_birds_are_their_parts():
    ids = np.array([0, 7, 30])
    config = prototype_attacks.CONFIGS["smoke"]
    found = prototype_attacks.regions(config, ids, 64)
    birds = truths.birds("parts:48", "test", ids, image_size=64)
    assert not np.any(found["head"] & found["stomach"])
    for name in ("eye", "beak"):
        mask = birds.masks[:, parts.PARTS.index(name)]
        assert found["head"][mask].all() and not found["stomach"][mask].any()


@pytest.mark.realdata
def test_of_pets_the_stomach_is_the_animal_without_its_head(data_folder, monkeypatch):
    monkeypatch.setenv("PROTOJAX_DATA", str(data_folder))
    config = prototype_attacks.CONFIGS["pets"]
    found = prototype_attacks.regions(config, np.arange(8), 96)
    known = found["head"].any((1, 2))
    assert 0 < known.sum() < 8  # half of them have a box
    assert not np.any(found["head"] & found["stomach"])
    assert found["stomach"].any((1, 2)).all()


def test_a_mask_is_outlined_from_outside():
    mask = np.zeros((4, 5), bool)
    mask[1, 2:4] = True
    image = np.zeros((4, 5, 3), np.float32)
    drawn = prototype_attacks_report.outlined(image, mask)
    found = np.argwhere(
        np.isclose(drawn, prototype_attacks_report.GREEN).all(-1)
    ).tolist()
    assert found == [[0, 2], [0, 3], [1, 1], [1, 4], [2, 2], [2, 3]]


@pytest.mark.slow
def test_a_run_reports_both_protocols_and_resumes(setup, monkeypatch, tmp_path):
    both = ("standard", "adversarial")
    config = dataclasses.replace(CONFIG, trained=both, attacks=("search",))
    head, stomach = np.zeros((2, 12, SIDE, SIDE), bool)
    head[:, : SIDE // 2], stomach[:, SIDE // 2 :] = True, True
    images, asked = setup.examples.test["image"], prototype_attacks.asked
    aims = prototype_attacks.aims
    changes = (
        (protopnet_setup, "set_up", lambda _: setup),
        (protopnet_setup, "fitted", lambda *_, **__: trained(setup.network)),
        (data, "pick", lambda *a, **_: {"image": images[a[2]]}),
        (prototype_attacks, "regions", lambda *_: {"head": head, "stomach": stomach}),
        (
            prototype_attacks,
            "asked",
            lambda *a: {name: pretended(study) for name, study in asked(*a).items()},
        ),
        (prototype_attacks, "aims", lambda *a: pretended(aims(*a))),
    )
    for change in changes:
        monkeypatch.setattr(*change)

    def run():
        prototype_attacks.main(config, tmp_path)
        return {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.parquet")}

    assert run() == run()
    numbers = json.loads((tmp_path / "summary.json").read_text())["numbers"]
    assert {(n["value"], n.get("protocol")) for n in numbers} >= {
        *(("clean", None), ("robust", None), ("gone", None), ("arrived", None)),
        *(("success", None), ("success", "april"), ("success", "may")),
    }
    page = (tmp_path / "report.md").read_text()
    assert "nan" not in page.split() and page.count("one network of each training") == 1
    assert "As the authors' code counts" in page and "paired by what is sampled" in page


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"repeats": 0}, "`repeats` is 0: it must be above zero"),
        ({"radius": 0.0}, "`radius` is 0: it must be above zero"),
        ({"attacks": ("serach",)}, "`attacks` has 'serach': .* Did you mean 'search'"),
        ({"trained": ()}, "`trained` is empty"),
        ({"attacks": ("random",)}, "`attacks` is .*: add search"),
        ({"qualities": (90, 20)}, r"`qualities` are \(90, 20\)"),
        (
            {"norm": "l2", "attacks": ("search", "random")},
            "`attacks` has random signs, which are of the L-infinity",
        ),
    ],
)
def test_what_means_nothing_is_refused(knobs, message, tmp_path):
    config = dataclasses.replace(CONFIG, **knobs)
    with pytest.raises(ValueError, match=message):
        prototype_attacks.main(config, tmp_path)


def test_images_cannot_be_changed_where_features_stand_for_them():
    still = dataclasses.replace(CONFIG.network, warm_epochs=CONFIG.network.epochs)
    both = {"trained": ("standard", "adversarial"), "network": still}
    with pytest.raises(ValueError, match="the backbone is never trained"):
        prototype_attacks.check(dataclasses.replace(CONFIG, **both))
    prototype_attacks.check(dataclasses.replace(CONFIG, network=still))
    assert prototype_attacks.prepared(CONFIG, "standard") is None


def test_a_network_that_is_never_right_is_not_attacked(setup):
    test = setup.examples.test
    wrong = {**test, "label": (test["label"] + 1) % CLASSES}
    mistaken = setup._replace(examples=setup.examples._replace(test=wrong))
    nets = {"standard": trained(setup.network)}
    with pytest.raises(ValueError, match="classified correctly by all networks"):
        prototype_attacks.candidates(CONFIG, mistaken, nets)
