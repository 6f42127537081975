import concurrent.futures
import dataclasses
import importlib
import json
import logging
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest

from experiments import (
    attacked,
    classifier,
    cli,
    explained,
    fragility,
    networks,
    strength,
    strength_studies,
    subjects,
)
from protojax import attributions, checkpoints, data, metrics
from protojax.scale import parts, sources
from tests import small

ROOT = pathlib.Path(__file__).parents[1]
SCRIPTS = sorted(
    path.stem
    for path in (ROOT / "experiments").glob("*.py")
    if "cli.run(CONFIGS" in path.read_text() and path.stem != "cli"
)
LONG = (
    *("cladec", "hessian", "influence", "jpeg", "protopnet", "prototype_attacks"),
    *("prototype_generation", "strength", "xnn"),
)
"""Their programs take minutes to compile; they have quicker tests of their own."""
ASKED = {
    "cladec": ["--layers", "stage1"],
    "prototype_attacks": ["--trained", "standard", "adversarial", "--network.needed=1"],
    "prototype_generation": [
        *("--methods", "prototype", "distill", "maco", "--redirect", "2"),
        *("--fooling", "--cues", "0"),
    ],
    "xnn": ["--layer", "stage1", "--classes", "None"],
}
"""Knobs of smoke runs for a network of one layer that hardly tells birds apart.

Those of attacks on prototypes train adversarially, and on after pruning.
"""
COLORS = {"blue": (30, 40, 200), "green": (30, 180, 60), "red": (200, 40, 50)}


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A cache folder of its own, where the network of smoke runs is trained briefly."""
    brief = {"train": 128, "widths": (16,), "steps": 100}
    small = dataclasses.replace(classifier.CONFIGS["small"], **brief)
    usual = classifier.network
    plain = usual(small).clone(groups=None)  # what is normalized compiles for longer
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(classifier.CONFIGS, "small", small)
        patch.setattr(
            classifier, "network", lambda c: plain if c == small else usual(c)
        )
        yield tmp_path_factory.mktemp("cache")


@pytest.fixture
def process(tmp_path, monkeypatch):
    """What a script sets in this process is put back, and it writes elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    level = logging.getLogger("protojax").level
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    logging.getLogger("protojax").setLevel(level)


@pytest.fixture
def own(process, monkeypatch):
    """A user's network in a module of theirs, and their folder of images."""
    monkeypatch.syspath_prepend(process)
    text = """
import jax.numpy as jnp

def network():
    def fn(weights, x):  # classes in the order of the folders: blue, green, red
        return weights["scale"] * jnp.mean(x**2, axis=(0, 1))[::-1]
    return fn, {"scale": jnp.float32(4.0)}

def blind():
    return lambda weights, x: network()[0](weights, 1 - x), {"scale": jnp.float32(4.0)}

def wrong():
    return network()[0]

def batches():
    return lambda weights, x: network()[0](weights, x)[None], {"scale": 4.0}

def both():
    return lambda weights, x: (network()[0](weights, x), x), {"scale": 4.0}

def broken():
    return lambda weights, x: network()[0](weights, x) / 0, {"scale": 0.0}

def two():
    return lambda weights, x: network()[0](weights, x)[:2], {"scale": 4.0}

def small():
    return lambda weights, x: x.ravel() @ weights, jnp.ones((12, 3))
"""
    (process / "mine.py").write_text(text)
    draw = np.random.default_rng(0)
    for name, color in COLORS.items():
        (process / "images" / name).mkdir(parents=True)
        for number in range(2):
            pixels = np.array(color) + draw.integers(-25, 26, (16, 16, 3))
            image = PIL.Image.fromarray(pixels.astype(np.uint8))
            image.save(process / "images" / name / f"{number}.png")
    yield process
    sys.modules.pop("mine", None)


def script(module, *args):
    plan = getattr(module, "plan", None)
    cli.run(module.CONFIGS, module.main, module.__doc__, plan=plan, args=args)


def written(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}


def check_results(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["config"] and config["packages"]["jax"] == jax.__version__
    assert written(folder)  # in `rows`, or in a folder for each network
    numbers = json.loads((folder / "summary.json").read_text())["numbers"]
    assert numbers
    for number in numbers:
        assert {"value", "mean", "low", "high", "n"} <= set(number)
    page = (folder / "report.html").read_text()
    links = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)["']""", page)
    assert [link for link in links if not re.match("data:|#|https?:", link)] == []
    assert "<table" in page and "url(" not in page and "<script src" not in page


@pytest.mark.parametrize("name", small.slow_among(SCRIPTS, LONG))
def test_a_smoke_run_leaves_its_rows_numbers_and_page_and_resumes(
    name, process, cache, monkeypatch, capsys
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv("PROTOJAX_DATA", raising=False)
    module = importlib.import_module(f"experiments.{name}")
    run = ["smoke", *ASKED.get(name, []), "--out", "here"]
    script(module, *run)
    assert "report.html" in capsys.readouterr().out
    check_results(process / "here")
    before = written(process / "here")
    script(module, *run)
    assert written(process / "here") == before


def test_experiments_that_start_at_once_train_one_network(process, monkeypatch):
    brief = {"train": 16, "image_size": 16, "widths": (8,), "steps": 2, "batch": 4}
    config = classifier.Config(save_every=1, **brief)
    begun, batches, usual = [], data.batches, classifier.network
    monkeypatch.setattr(classifier, "network", lambda c: usual(c).clone(groups=None))
    monkeypatch.setattr(
        data, "batches", lambda *a, **knobs: begun.append(a) or batches(*a, **knobs)
    )
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = list(pool.map(classifier.trained, [config] * 2))
    assert len(begun) == 1
    jax.tree.map(np.testing.assert_array_equal, *(weights for _, weights in found))
    (folder,) = (process / "cache" / "protojax").glob("birds-*")
    assert checkpoints.steps(folder) == [1, 2]


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_lists_every_knob_of_a_script(name, process, capsys):
    module = importlib.import_module(f"experiments.{name}")
    with pytest.raises(SystemExit) as stop:
        script(module, "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(module.Config):
        assert f"--{field.name.replace('_', '-')}" in text
    assert "smoke" in text and "--out" in text
    assert not list(process.iterdir())


OWN = ["smoke", "--model", "mine:network", "--data", "folder:images"]
OWN += ["--image-size", "16", "--attributions", "gradient"]


def test_your_own_network_and_images_are_attacked(own):
    script(fragility, *OWN, "--images", "6", "--no-hessian", "--out", "here")
    check_results(own / "here")
    rows = pq.read_table(own / "here" / "rows").to_pylist()
    assert sorted(row["label"] for row in rows if row["attack"] == "top_k") == [
        *(0, 0, 1, 1, 2, 2)
    ]
    assert all(row["label_kept"] and row["linf"] <= 4.01 / 255 for row in rows)
    assert "on_parts_before" not in rows[0]


@pytest.mark.parametrize(
    "module", [fragility, pytest.param(strength, marks=pytest.mark.slow)]
)
def test_a_plan_prints_programs_and_writes_nothing(module, own, capsys):
    others = {
        fragility: ["--attacks", "random"],
        strength: ["--bystanders", "input_x_gradient"],
    }
    script(module, *OWN, *others[module], "--plan")
    text = capsys.readouterr().out
    assert "memory per device" in text and "program" in text
    assert {path.name for path in own.iterdir()} <= {
        *("mine.py", "images", "cache", "__pycache__")
    }


def test_the_configurations_are_those_of_the_page():
    page = (ROOT / "docs/fragility.md").read_text()
    short = {"gradient": "gradient", "deep_lift": "DeepLIFT"}
    short["integrated_gradients"] = "integrated gradients (IG)"
    rows = re.findall(r"^\| `(imagenet.*|cifar10)` \| (.*) \|$", page, re.M)
    assert len(rows) == 6
    for name, rest in rows:
        config = fragility.CONFIGS[name]
        explained_, images, steps, radii, points = (c.strip() for c in rest.split("|"))
        names = ", ".join(short[name] for name in config.attributions)
        assert explained_ in (names, "all three")
        assert (int(images), int(steps)) == (config.images, config.steps)
        assert radii == ", ".join(f"{radius:g}" for radius in config.radii)
        wanted = f"{config.attack_points}, {config.points}"
        assert points == (
            wanted if "integrated_gradients" in config.attributions else ""
        )
        assert config.step_size == 0.5 and config.image_size is None
        assert config.baseline == ("mean" if "imagenet" in name else "black")


def test_the_truth_is_known_of_every_network_on_the_embedded_birds(own):
    (own / "mine.py").write_text(
        "import jax.numpy as jnp\n"
        "def network():\n"
        "    return lambda w, x: w + x.mean(), jnp.eye(20)[3]\n"  # more than 8 classes
    )
    config = fragility.Config(
        model="mine:network", data="parts:32", image_size=32, images=3
    )
    setup, _ = fragility.set_up(config)
    assert setup.examples["label"].tolist() == [3, 3, 3]
    truth = setup.examples["truth"]
    assert truth.shape == (3, 32, 32) and set(np.unique(truth)) == {0.0, 1.0}
    assert setup.beta == 0.0  # there is no ReLU, so no twin
    seed = sources.PARTS_SEEDS["test"]
    birds = parts.draw([3, 11, 19], image_size=32, seed=seed)
    assert np.all(truth <= np.any(birds.masks, axis=1))
    # Of kinds that share nothing all but the eye tells apart; a slice begins elsewhere.
    apart = {"image": setup.examples["image"][:2], "id": np.array([0, 1])}
    truth = subjects.deciding_parts(setup.network, "parts:9#apart", "test[4:]", apart)
    birds = parts.draw([4, 5], image_size=32, seed=seed, classes=parts.APART)
    eye = parts.PARTS.index("eye")
    assert np.array_equal(truth, np.any(np.delete(birds.masks, eye, 1), axis=1))


def test_bad_networks_and_images_say_what_to_do(own, monkeypatch):
    with pytest.raises(ValueError, match="'resnet': choose from parts, parts_small"):
        networks.load("resnet")
    with pytest.raises(ValueError, match="cannot be imported.*PYTHONPATH"):
        networks.load("missing:network")
    with pytest.raises(ValueError, match="cannot be imported.*nothing"):
        networks.load("mine:nothing")
    with pytest.raises(ValueError, match=r"must return \(fn, weights\).*function"):
        networks.load("mine:wrong")
    for name, made in (("batches", r"float32 \[1, 3\]"), ("both", "tuple")):
        message = rf"makes {made} of an .*\(x\[None\]\)\[0\]"
        with pytest.raises(ValueError, match=message):
            networks.load(f"mine:{name}", image_size=16)
    with pytest.raises(TypeError) as failed:
        networks.load("mine:small", image_size=16)
    assert "image [16, 16, 3]: see `--image-size`" in "".join(failed.value.__notes__)
    monkeypatch.setenv("PROTOJAX_DATA", str(own))
    for name, why in (
        ("broken", "not finite, for 6 of 6 images"),
        ("two", "has 2 logits, and the images have labels up to 2"),
    ):
        network = networks.load(f"mine:{name}", image_size=16)
        with pytest.raises(ValueError, match=why):
            networks.correct(network, "folder:PROTOJAX_DATA/images", "all", count=3)
    blind = networks.load("mine:blind", image_size=16)
    with pytest.raises(ValueError, match="is classified correctly: do its labels"):
        networks.correct(blind, f"folder:{own / 'images'}", "all", count=2)
    monkeypatch.delenv("PROTOJAX_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="PROTOJAX_DATA names.*--model parts"):
        networks.load("cifar10_resnet20")


@pytest.mark.usefixtures("own")
def test_an_unknown_attack_is_named():
    with pytest.raises(SystemExit, match="`attacks` has 'topk'"):
        script(fragility, *OWN, "--attacks", "topk", "--out", "here")


def test_each_searching_attack_has_a_null_that_chooses_as_it_does():
    weight = jax.random.normal(jax.random.key(0), (8, 8, 3))
    fn = lambda z: jnp.stack([jnp.sum(jnp.sin(3 * weight * z)), -99.0])
    explain = lambda z: attributions.heatmap(jax.grad(lambda u: fn(u)[0])(z))
    x = jax.random.uniform(jax.random.key(1), (8, 8, 3))

    def found(name, measure="objective"):
        out = attacked.attack(
            name,
            fn,
            explained.Climbed(explain, explain, None),
            fn,
            x,
            k=6,
            radius=0.1,
            step_size=0.01,
            steps=10,
            key=jax.random.key(2),
            measure=measure,
        )
        before, after = explain(x), explain(out.x)
        top = metrics.top_k_mask(before, k=6)
        return {
            "top": -jnp.sum(after * top),
            "center": metrics.center_shift(before, after),
            "rank": -metrics.rank_correlation(before, after),
            "looks": len(out.trace),
        }

    top, center, one = found("random_best"), found("random_center"), found("random")
    assert (top["looks"], center["looks"], one["looks"]) == (10, 18, 1)
    # The draws of one null begin with those of the other, so none of this is luck.
    assert center["center"] > top["center"] and top["top"] > one["top"]
    ranks = [found(name, "rank")["rank"] for name in ("random_best", "random_center")]
    assert top["rank"] <= ranks[0] <= ranks[1] > center["rank"]


def test_an_attack_on_smooth_gradient_draws_noise_at_every_step():
    fn = lambda z: jnp.stack([jnp.sum(jax.nn.relu(z) ** 3), 0.0])
    x = jax.random.uniform(jax.random.key(0), (6, 6, 3))

    target = explained.target(lambda w, z: w * fn(z), 1.0, x, 4)

    def trace(name):
        climbed = target.climbed(name, 2, jax.random.key(1), beta=jnp.float32(10.0))
        ball = {"radius": 0.1, "step_size": 1e-9, "steps": 4}  # too short to move
        return strength_studies.top_k(target, climbed, **ball).trace

    assert len(np.unique(trace("smooth_gradient"))) == 4
    assert len(np.unique(trace("smooth_gradient_one_draw"))) == 1


def test_the_probability_is_attacked_and_the_logit_judged():
    first, second = jnp.ones((2, 2, 3)), jnp.zeros((2, 2, 3)).at[0, 0].set(1.0)
    fn = lambda w, z: w * jnp.stack([jnp.sum(first * z), jnp.sum(second * z)])
    target = explained.target(fn, 1.0, jnp.full((2, 2, 3), 0.5), 1)
    name, key = "integrated_gradients_of_probability", jax.random.key(0)
    climbed = target.climbed(name, 3, key, beta=jnp.float32(1.0))
    # With two linear logits a probability has the direction of their difference all
    # along the path: the pixel that both logits have in common is left out.
    for explain in (climbed.explain, climbed.twin):
        a = explain(target.x)
        np.testing.assert_allclose(a, [[0, 1 / 3], [1 / 3, 1 / 3]], atol=1e-6)
    judged = target.judge(name, 3, key)(target.x)
    np.testing.assert_allclose(judged, np.full((2, 2), 0.25), atol=1e-6)


def test_the_pooling_of_the_authors_has_a_name():
    def fn(z):
        window = (2, 2, 1)
        top = jax.lax.reduce_window(z, -jnp.inf, jax.lax.max, window, window, "VALID")
        return jnp.sum(top)[None]

    x = jnp.zeros((2, 2, 3)).at[1, 1].set(0.4)
    key, gray = jax.random.key(0), (0.5, 0.5, 0.5)
    one, other = (
        explained.explanation(name, 1, key, fn, 0, x, color=gray)
        for name in ("deep_lift_winner_take_all", "deep_lift")
    )
    # The maximum fell from 0.5 to 0.4. It is at (1, 1) in the image, to which the
    # authors give all; in a gray one the first pixel wins, and has lost the most.
    np.testing.assert_allclose(one, [[0, 0], [0, 1]], atol=1e-6)
    np.testing.assert_allclose(other, [[1, 0], [0, 0]], atol=1e-6)
