"""What `experiments.jpeg` asks of an image, and what it reports."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import (
    backbones,
    jpeg,
    jpeg_report,
    protopnet_data,
    protopnet_network,
    protopnet_setup,
    remedies,
)
from protojax import compression, prototypes
from protojax.models import protopnet
from tests.squares import pretended, trained

KEY = jax.random.key(0)
SIDE, GRID, CLASSES = 16, 2, 4
CONFIG = jpeg.CONFIGS["smoke"]


def features(weights, x):
    """How rough the blocks of an image are, mixed: compression smooths them."""
    cells = x.reshape(GRID, SIDE // GRID, GRID, SIDE // GRID, 3)
    return jnp.tanh(10 * cells.std((1, 3)) @ weights["mix"])


@pytest.fixture(scope="module")
def setup():
    """An untrained network of eight prototypes, and images of every class."""
    draw = np.random.default_rng(0)
    weights = {"mix": draw.normal(size=(3, 6)).astype(np.float32)}
    shape = (GRID, GRID, 6)
    backbone = backbones.Backbone(features, None, weights, {}, SIDE, "map", shape)
    head = protopnet.PrototypeHead(CLASSES, prototypes.owners(8, CLASSES), 4)
    network = protopnet_network.Network(backbone, head)
    gray = draw.uniform(size=(8, SIDE, SIDE, 1)).astype(np.float32).repeat(3, -1)
    batch = {
        "image": gray,
        "label": np.arange(8, dtype=np.int32) % CLASSES,
        "id": np.arange(8),
    }
    examples = protopnet_data.Examples(
        batches=lambda start: iter([batch] * (2 - start)),
        in_order=lambda: iter([batch]),
        test=batch,
        epoch=1,
    )
    names = ("one", "two", "three", "four")
    return protopnet_setup.Setup(network, examples, network, examples, names, {})


@pytest.fixture(scope="module")
def swept(setup):
    """`(name, **setting) -> ` the rows of a sweep, by one program for all settings."""
    asked = jpeg.asked(CONFIG, setup, trained(setup.network))

    @functools.cache
    def program(name):
        def one(example, key, setting):
            return asked[name].one(asked[name].weights, example, key, **setting)

        return jax.jit(jax.vmap(one, (0, 0, None)))

    def rows(name, **setting):
        examples = asked[name].examples
        keys = jax.random.split(KEY, len(examples["id"]))
        return program(name)(examples, keys, setting)

    return rows


def test_an_image_is_seen_as_it_is_and_as_the_codec_leaves_it(setup, swept):
    row, test = swept("seen"), setup.examples.test
    network, weights = setup.network, trained(setup.network).weights
    classify, maps = (
        jax.jit(network.apply(method)) for method in ("__call__", "similarities")
    )
    owners, odd = np.asarray(network.head.owners), test["label"] % 2 == 1
    for i, x in enumerate(test["image"]):
        back = compression.jpeg(x, quality=CONFIG.quality)
        np.testing.assert_array_equal(row["compressed"][i], back)
        logits = [np.asarray(classify(weights, z)) for z in (x, back)]
        similar = [np.asarray(maps(weights, z)).max((0, 1)) for z in (x, back)]
        top = similar[1].argmax()
        right = [one.argmax() == test["label"][i] for one in logits]
        assert int(row["top"][i]) == top
        assert bool(row["top_odd"][i]) == (owners[top] % 2 == 1)
        assert [row["correct_clean"][i], row["correct_compressed"][i]] == right
        assert bool(row["correct_half"][i]) == right[int(odd[i])]
        kept = similar[0][top] / similar[1][top]
        np.testing.assert_allclose(row["kept"][i], kept, rtol=1e-4)
        assert row["rank_clean"][i] == 1 + np.sum(similar[0] > similar[0][top])
        chances = [np.exp(one - one.max()) for one in logits]
        told = [one[1::2].sum() / one.sum() for one in chances]
        found = row["told_odd_clean"][i], row["told_odd_compressed"][i]
        np.testing.assert_allclose(found, told, rtol=1e-4)


def test_similarity_falls_with_the_quality_of_what_is_rough(swept):
    low, high = (swept("quality", quality=q) for q in (5.0, 100.0))
    whole = swept("seen")["similar"][:, 0].max(1)
    away = [np.abs(np.asarray(r["similarity"]) - whole) for r in (low, high)]
    assert away[1].mean() < 0.2 * away[0].mean()


def test_each_training_has_its_examples(setup):
    test = setup.examples.test
    of = lambda name: jpeg.changed(CONFIG, name, setup.examples, 0)
    assert of("clean") is setup.examples
    planted = next(of("artefacts").batches(0))["image"]
    same = (planted == test["image"]).all((1, 2, 3))
    np.testing.assert_array_equal(same, test["label"] % 2 == 0)
    some = next(of("remedy").batches(0))["image"]
    same = (some == test["image"]).all((1, 2, 3))
    assert 0 < same.sum() < 8 and len([*of("remedy").in_order()]) == 2
    np.testing.assert_array_equal(of("remedy").test["image"], test["image"])


def test_artefacts_are_planted_in_odd_classes_wherever_images_are_read(setup):
    changed = remedies.planted(setup.examples, quality=20)
    before = setup.examples.test
    odd = before["label"] % 2 == 1
    assert odd.any() and not odd.all()
    for batch in (next(changed.batches(0)), next(changed.in_order()), changed.test):
        np.testing.assert_array_equal(batch["image"][~odd], before["image"][~odd])
        for i in np.flatnonzero(odd):
            np.testing.assert_array_equal(
                batch["image"][i], compression.jpeg(before["image"][i], quality=20)
            )


def test_compression_at_random_goes_on_where_it_was_stopped(setup):
    changed = remedies.at_random(setup.examples, quality=20, share=0.5, seed=3)
    batches = list(changed.batches(0))
    np.testing.assert_array_equal(
        next(changed.batches(1))["image"], batches[1]["image"]
    )
    same = [
        (b["image"] == setup.examples.test["image"]).all((1, 2, 3)) for b in batches
    ]
    assert 0.2 < np.mean(same) < 0.8 and not np.array_equal(*same[:2])
    pushed = list(changed.in_order())
    ids = np.concatenate([batch["id"] for batch in pushed])
    assert len({*ids.tolist()}) == 16
    np.testing.assert_array_equal(pushed[0]["image"], setup.examples.test["image"])
    everything = remedies.everything(setup.examples.test, quality=20)["image"]
    np.testing.assert_array_equal(pushed[1]["image"], everything)


def test_the_most_similar_prototypes_in_both_orders():
    kept = {
        "id": 3,
        "owners": np.array([4, 5, 6]),
        "similar": np.array([[1.0, 3.0, 2.0], [9.0, 7.0, 8.0]]),
    }
    rows = jpeg_report.top_rows([kept])
    of = lambda version, name: [r[name] for r in rows if r["version"] == version]
    assert of("compressed", "by_compressed") == [9, 8, 7]
    assert of("as it is", "by_compressed") == [1, 2, 3]
    assert of("as it is", "by_clean") == [3, 2, 1]
    assert of("compressed", "by_clean") == [7, 8, 9]
    lines = jpeg_report.top_table(kept).splitlines()
    assert lines[2:] == [
        "| 1 | 4 | 9.00 | 5 | 3.00 |",
        "| 2 | 6 | 8.00 | 6 | 2.00 |",
        "| 3 | 5 | 7.00 | 4 | 1.00 |",
    ]


@pytest.mark.slow
def test_a_run_reports_on_every_training_and_resumes(setup, monkeypatch, tmp_path):
    monkeypatch.setattr(protopnet_setup, "set_up", lambda _: setup)
    monkeypatch.setattr(
        protopnet_setup, "fitted", lambda *_, **__: trained(setup.network)
    )
    asked = jpeg.asked
    known = lambda example: {"odd": example["label"] % 2 == 1, **example}
    monkeypatch.setattr(
        *(jpeg, "asked"),
        lambda *a: {name: pretended(s, known) for name, s in asked(*a).items()},
    )

    def run():
        jpeg.main(CONFIG, tmp_path)
        return {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.parquet")}

    before = run()
    with monkeypatch.context() as patch:  # one report is enough
        patch.setattr(jpeg_report, "write", lambda *_: None)
        assert run() == before
    numbers = json.loads((tmp_path / "summary.json").read_text())["numbers"]
    assert {number["trained"] for number in numbers} == {"clean", "artefacts", "remedy"}
    assert {number["value"] for number in numbers} >= {
        *("correct_half", "correct_clean", "correct_compressed", "kept", "top_odd"),
        *("similarity", "told_odd_compressed"),
    }
    page = (tmp_path / "report.md").read_text()
    assert "nan" not in page.split() and "The most similar prototypes" in page
    assert "paired by what is sampled" in page


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"quality": 0}, "`quality` is 0: it must be at least 1"),
        ({"qualities": (0.5,)}, "`qualities` has 0.5: it must be at least 1"),
        ({"quality": 101}, "`quality` is 101 .* from 1 to 100"),
        ({"qualities": (20.0, 120.0)}, r"`qualities` are \(20.0, 120.0\)"),
        ({"share": 1.5}, "`share` is 1.5: pass a probability"),
        ({"trained": ("artifacts",)}, "Did you mean 'artefacts'"),
    ],
)
def test_what_means_nothing_is_refused(knobs, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        jpeg.main(dataclasses.replace(CONFIG, **knobs), tmp_path)


def test_features_cannot_be_compressed(tmp_path):
    still = dataclasses.replace(CONFIG.network, warm_epochs=CONFIG.network.epochs)
    with pytest.raises(ValueError, match="the backbone is never trained"):
        jpeg.main(dataclasses.replace(CONFIG, network=still), tmp_path)
