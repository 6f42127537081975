"""What `experiments.fragility` refuses, does to one image, plans and shows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import (
    explained,
    fragility,
    fragility_report,
    hessian,
    shown,
    strength,
    studies,
)
from protojax.scale import pages, report, sweeps

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("script", "knobs", "message"),
    [
        (fragility, {"radii": (4.0, -4.0)}, "`radii` has -4: it must be zero or above"),
        (fragility, {"radii": (float("nan"),)}, "`radii` has nan"),
        (fragility, {"radii": ()}, "`radii` is empty: give at least one"),
        (fragility, {"step_size": 0.0}, "`step_size` is 0: it must be above zero"),
        (fragility, {"steps": 0}, "`steps` is 0"),
        (fragility, {"attack_points": 0}, "`attack_points` is 0"),
        (fragility, {"beta": -1.0}, "`beta` is -1"),
        (fragility, {"k": 0}, "`k` is 0"),
        (fragility, {"attacks": ("topk",)}, "`attacks` has 'topk'.*mean 'top_k'"),
        (fragility, {"attributions": ("grad_cam",)}, "'grad_cam', which needs a layer"),
        (fragility, {"attributions": ("gradients",)}, "which is not in.*gradient, "),
        (strength, {"attributions": ("grad_cam",)}, "`attributions` has 'grad_cam'"),
        (strength, {"attribution": "guided_gradient"}, "has no smooth twin"),
        (strength, {"bystanders": ("grad_cam",)}, "`bystanders` has 'grad_cam'"),
        (strength, {"radius": -1.0}, "`radius` is -1"),
        (strength, {"steps": (10, 0)}, "`steps` has 0"),
        (hessian, {"attacks": ("eigen",)}, "`attacks` has 'eigen'"),
        (hessian, {"lengths": (0.0,)}, "`lengths` has 0"),
    ],
)
def test_what_means_nothing_is_refused_before_anything_is_loaded(
    script, knobs, message
):
    config = dataclasses.replace(script.Config(model="nowhere"), **knobs)
    with pytest.raises(ValueError, match=message):
        script.set_up(config)


def test_what_means_something_is_not_refused():
    for script in (fragility, strength, hessian):
        for config in script.CONFIGS.values():
            script.check(config)
    fragility.check(fragility.Config(radii=(0.0,)))
    strength.check(strength.Config(bystanders=(), starts=0))


def relu(weights, x):
    first, last = weights
    return jax.nn.relu((x.ravel() - 0.5) @ first) @ last


def test_an_eigenvector_is_one_of_the_twin_whatever_is_explained():
    draw = np.random.default_rng(0)
    weights = [jnp.float32(draw.normal(size=shape)) for shape in ((48, 12), (12, 3))]
    config = fragility.Config(k=4)
    image = jnp.float32(draw.uniform(size=(4, 4, 3)))

    @jax.jit
    def one(beta):
        row = fragility.one(
            *(relu, config, (0.0, 0.0, 0.0), weights, {"image": image}, KEY),
            attribution="deep_lift",
            attack="eigenvector",
            radius=jnp.float32(0.1),
            step_size=jnp.float32(0.01),
            beta=beta,
        )
        return {name: row[name] for name in ("stalled", "found", "linf", "twin_agrees")}

    row = one(20.0)
    assert not row["stalled"] and row["twin_agrees"] and 0 < row["linf"] < 0.1001
    smooth = explained.smooth_twin(lambda x: relu(weights, x), 1e-3, image)
    label = jnp.argmax(relu(weights, image))
    assert one(1e-3)["twin_agrees"] == (jnp.argmax(smooth(image)) == label)


def test_a_plan_is_of_what_is_run(monkeypatch, tmp_path):
    seen = {"run": [], "plan": []}

    def note(which):
        def noted(one, weights, settings, examples, *folder, **knobs):
            knobs.pop("key", None)
            seen[which].append((one, weights, settings, examples, knobs))
            return list(folder)[:0]

        return noted

    monkeypatch.setattr(sweeps, "run", note("run"))
    monkeypatch.setattr(sweeps, "plan", note("plan"))
    config = fragility.Config(chunk=3)
    first = studies.Study(len, [{"radius": 1.0}], {"id": np.arange(2)}, keep=[0])
    found = {"": first, "other": first._replace(chunk=7, keep=())}
    studies.run(found, config, tmp_path)
    studies.plan(found, config)
    assert seen["run"] == seen["plan"] and len(seen["run"]) == 2
    assert [knobs["chunk"] for *_, knobs in seen["plan"]] == [3, 7]
    assert [knobs["keep"] for *_, knobs in seen["plan"]] == [[0], ()]


@pytest.fixture
def written(monkeypatch, tmp_path):
    """The text and the numbers of the page that is made of some rows."""

    def write(config, rows, kept=()):
        page = {}
        monkeypatch.setattr(report, "read", lambda _: rows)
        monkeypatch.setattr(report, "arrays", lambda _: list(kept))
        monkeypatch.setattr(report, "provenance", lambda _: {})
        monkeypatch.setattr(pages, "write", lambda _, **given: page.update(given))
        fragility_report.write(config, tmp_path, k=2, pixels=16)
        blocks = [block for section in page["sections"] for block in section.blocks]
        for block in blocks:
            if isinstance(block, pages.Picture):
                block.figure.canvas.draw()
        texts = [getattr(block, "text", str(block)) for block in blocks]
        titles = [section.title for section in page["sections"]]
        return "\n".join([*titles, *texts]), page["numbers"]

    return write


def rows(*, attacks=("top_k", "random"), **columns):
    """Of two images at two radii; a list in `columns` has a value for each image."""
    usual = {
        **{"label": 1, "overlap": 0.5, "rank": 0.25, "center": 1.0, "linf": 0.01},
        **{"center_of_uniform": 2.0, "quarter_before": 0.1, "quarter_after": 0.2},
        **{"confidence_before": 0.9, "confidence_after": 0.8, "label_kept": True},
        **{"found": True, "step": 3, "stalled": False, "twin_agrees": True},
        **{"beta": 10.0, "attribution": "gradient", **columns},
    }
    return [
        {
            **{name: v[i] if isinstance(v, list) else v for name, v in usual.items()},
            **{"id": i, "attack": attack, "radius": radius},
        }
        for attack in attacks
        for radius in (1 / 255, 2 / 255)
        for i in range(2)
    ]


CONFIG = fragility.Config(attributions=("gradient",), attacks=("top_k", "random"))


def kept(ident, maps):
    picture = {name: np.zeros((4, 4, 3)) for name in ("image", "perturbed")}
    where = {"attribution": "gradient", "attack": "top_k", "radius": 2 / 255}
    return {"id": ident, **where, **picture, "before": maps, "after": maps}


def test_a_map_without_a_rank_correlation_is_shown_as_such(written):
    constant = np.full((4, 4), np.nan)
    text, numbers = written(CONFIG, rows(rank=None), [kept(0, constant)])
    assert "| top-2 attack | none n=0, 2 left out |" in text
    ranks = [number for number in numbers if number["value"] == "rank"]
    assert {(number["mean"], number["left_out"]) for number in ranks} == {(None, 2)}


def test_stalled_rows_are_counted_and_ascribed(written):
    text, numbers = written(
        *(CONFIG, rows(stalled=True, found=False, beta=0.0)),
        [kept(1, np.ones((4, 4)) / 16)],
    )
    assert "in none of their rows that are not stalled" in text
    assert "8 of 8 rows are **stalled**" in text
    assert "No ReLU was found" in text and "has it other kinks?" in text
    stalled = [number for number in numbers if number["value"] == "stalled"]
    assert {(number["mean"], number["n"]) for number in stalled} == {(1.0, 2)}
    some = rows(stalled=[True, False], found=[False, True])
    assert shown.share(some, "found") == "100%"
    assert "4 of 16 rows are **stalled**" in shown.stalled([*some, *rows()])
    assert "kinks" not in shown.without_relu(rows())


def test_chance_is_that_of_the_explanation(written):
    other = rows(attribution="deep_lift", center_of_uniform=5.0)
    config = dataclasses.replace(CONFIG, attributions=("gradient", "deep_lift"))
    text, numbers = written(config, [*rows(), *other])
    chances = {
        (number["attribution"], number["chance"])
        for number in numbers
        if number["value"] == "center"
    }
    assert chances == {("gradient", 2.0), ("deep_lift", 5.0)}
    assert "(chance 2.00)" in text and "(chance 5.00)" in text


def test_a_targeted_attack_is_judged_by_its_aim(written):
    config = dataclasses.replace(CONFIG, attacks=("targeted",))
    text, numbers = written(config, rows(attacks=("targeted",), quarter_after=0.75))
    assert "Aim of the targeted attack" in text
    assert "| gradient | 0.100 [0.100, 0.100] n=2 | 0.750 [0.750, 0.750] n=2 |" in text
    means = {n["mean"] for n in numbers if n["value"] == "quarter_after"}
    assert means == {0.75}
