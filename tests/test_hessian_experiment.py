"""What the experiment on curvature claims to compute, against closed forms."""

import dataclasses
import functools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import (
    explained,
    hessian,
    hessian_analytic,
    hessian_attacks,
    hessian_report,
    hessian_studies,
    networks,
)
from protojax.methods import metrics
from protojax.scale import report

KEY = jax.random.key(0)


def network(weights, z):
    hidden = jax.nn.relu(weights["first"] @ z.ravel() + weights["bias"])
    return weights["second"] @ hidden


@pytest.fixture
def seen():
    """A small ReLU network, an image, and another one."""
    rng = np.random.default_rng(0)
    weights = {
        "first": jnp.asarray(rng.normal(size=(20, 48)), jnp.float32) / 4,
        "bias": jnp.asarray(rng.normal(size=20), jnp.float32),
        "second": jnp.asarray(rng.normal(size=(3, 20)), jnp.float32),
    }
    x, other = jnp.asarray(rng.uniform(size=(2, 4, 4, 3)), jnp.float32)
    config = dataclasses.replace(
        hessian.CONFIGS["smoke"],
        steps=24,
        values=3,
        quadrature=20,
        lengths=(0.01, 30.0),
    )
    example = {"image": x, "other": other, "label": jnp.int32(0), "id": 0}
    return types.SimpleNamespace(**locals())


def dense(seen, beta):
    """Gradient and Hessian of the twin's logit, and those of the cross-entropy."""
    y = int(network(seen.weights, seen.x).argmax())
    model = lambda z: network(seen.weights, z)
    twin = explained.smooth_twin(model, beta, seen.x)
    logit = lambda flat: twin(flat.reshape(seen.x.shape))[y]
    loss = lambda flat: -jax.nn.log_softmax(model(flat))[y]
    flat = seen.x.ravel()
    return [
        np.asarray(jax.jit(f)(flat), np.float64)
        for f in (*map(jax.grad, (logit, loss)), *map(jax.hessian, (logit, loss)))
    ]


def degrees(a, b):
    cosine = abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b)
    return np.degrees(np.arccos(min(cosine, 1)))


def leading(matrix):
    values, vectors = np.linalg.eigh(matrix)
    place = np.argmax(np.abs(values))
    return values[place], vectors[:, place]


def test_angles_and_spectra_are_those_of_the_dense_hessians(seen):
    beta = jnp.float32(4.0)
    g, of_loss, hessian_of_logit, hessian_of_loss = dense(seen, beta)
    value, vector = leading(hessian_of_logit)
    config = seen.config
    run = lambda one: jax.jit(
        lambda key: one(network, config, seen.weights, seen.example, key, beta=beta)
    )(KEY)
    row = run(hessian_studies.angles)
    assert float(row["eigenvalue"]) == pytest.approx(value, rel=1e-4)
    assert float(row["residual"]) < 1e-3
    assert float(row["angle"]) == pytest.approx(degrees(g, vector), abs=0.05)
    closed = degrees(of_loss, leading(hessian_of_loss)[1])
    assert float(row["angle_cross_entropy"]) == pytest.approx(closed, abs=0.05)
    row = run(hessian_studies.spectra)
    sizes = np.sort(np.abs(np.linalg.eigvalsh(hessian_of_logit)))[::-1]
    found = [abs(float(row[f"logit_{i}"])) for i in range(3)]
    np.testing.assert_allclose(found, sizes[:3], rtol=1e-3)
    values = np.linalg.eigvalsh(hessian_of_loss)[::-1]
    pair = [float(row[f"cross_entropy_{i}"]) for i in range(2)]
    np.testing.assert_allclose(pair, values[:2], rtol=1e-3)
    assert "cross_entropy_2" not in row  # of three classes, one is no news
    assert float(row["closed_form_differs"]) < 1e-3
    # Two directions and 20 steps resolve all of rank 20; the mean of the squares over
    # directions has a standard deviation of about a fifth here.
    norm = np.linalg.norm(hessian_of_logit)
    assert float(row["frobenius"]) == pytest.approx(norm, rel=0.5)


@pytest.mark.parametrize("operator", ["hessian", "jacobian"])
def test_first_order_holds_for_short_steps_and_only_for_those(seen, operator):
    row = jax.jit(
        lambda key: hessian_studies.turned(
            *(network, seen.config, seen.weights, seen.example, key),
            operator=operator,
            beta=jnp.float32(4.0),
        )
    )(KEY)
    for way in ("leading", "random"):
        short = float(row[f"{way}_twin_0"] / row[f"{way}_predicted_0"])
        assert short == pytest.approx(1, abs=0.02)
    far = float(row["leading_twin_1"] / row["leading_predicted_1"])
    assert far < 0.9
    assert float(row["leading_predicted_0"]) > float(row["random_predicted_0"])


def test_attacks_of_equal_budget_stay_in_the_ball_and_keep_the_label(seen):
    config = dataclasses.replace(seen.config, k=4, budget=14)

    def attacked(key, attack):
        return hessian_attacks.equal_budget(
            *(network, config, seen.weights, seen.example, key),
            attribution="gradient",
            attack=attack,
            radius=jnp.float32(0.02),
            step_size=jnp.float32(0.005),
            beta=jnp.float32(4.0),
        )

    names = ("hessian", "jacobian", "jacobian_across", "gradient")
    rows = jax.jit(lambda key: {name: attacked(key, name) for name in names})(KEY)
    for name, row in rows.items():
        assert bool(row["label_kept"]), name
        assert float(row["linf"]) <= 0.02 * (1 + 1e-6), name
        np.testing.assert_allclose(row["before"].sum(), 1, rtol=1e-5)
        change = jnp.abs(row["after"] - row["before"]).sum() / 2
        assert float(row["moved"]) == pytest.approx(float(change), rel=1e-5)
        assert float(metrics.linf(row["perturbed"], seen.x)) == float(row["linf"])


def test_fragility_5_3_a_neuron_turns_with_the_dimension_and_its_map_never():
    def row(dimension):
        return jax.jit(
            lambda key: hessian_analytic.grown(
                *((), {}, key), net="neuron", dimension=dimension, radius=1e-4
            )
        )(KEY)

    few, many = row(16), row(1024)
    for found in (few, many):
        assert float(found["gradient"]) == pytest.approx(
            float(found["predicted"]), rel=5e-3
        )
        assert float(found["map"]) < 1e-5
    # The length of signs grows as the root of the dimension, for weights of one length.
    assert float(many["gradient"] / few["gradient"]) == pytest.approx(8, rel=0.3)


def test_fragility_5_5_the_loss_of_a_neuron_has_a_second_term():
    row = jax.jit(
        lambda key: hessian_analytic.grown(
            *((), {}, key), net="loss", dimension=64, radius=1e-4
        )
    )(KEY)
    assert float(row["gradient"]) == pytest.approx(float(row["predicted"]), rel=0.02)
    assert abs(float(row["gradient"] / row["first_term"]) - 1) > 0.1


def test_fragility_5_4_units_that_are_orthogonal_give_the_angle():
    rows = jax.jit(
        jax.vmap(
            lambda key: hessian_analytic.widths((), {}, key, units=4, dimension=2000)
        )
    )(jax.random.split(KEY, 4))
    # Of random directions in 2000 dimensions cosines are about 0.02, a degree.
    np.testing.assert_allclose(rows["angle"], rows["angle_orthogonal"], atol=4)


def blank(row):
    """A row of which nothing is known but its setting."""
    known = ("beta", "radius", "step_size", "dimension", "units")
    gone = lambda name, value: isinstance(value, float) and name not in known
    values = {name: None if gone(name, v) else v for name, v in row.items()}
    return {**values, "stalled": True}


def pretended(one):
    """A function with the results of another one in kind, which compiles in no time."""

    def fake(weights, example, key, **setting):
        look = functools.partial(one, **setting)
        row = jax.eval_shape(look, weights, example, key)
        draw = jax.random.uniform(key, (), minval=0.1)
        return {
            name: jnp.full(leaf.shape, draw if leaf.dtype.kind == "f" else yes(name))
            for name, leaf in row.items()
        }

    def yes(name):
        return name != "stalled"

    return fake


@pytest.mark.slow
def test_a_run_reports_on_all_questions_and_resumes(seen, monkeypatch, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (6, 4, 4, 3), np.uint8)
    logits = jax.vmap(lambda x: network(seen.weights, x))(jnp.float32(pixels / 255))
    labels = np.argmax(logits, axis=1).astype(np.int32)
    np.savez(tmp_path / "some.npz", images=pixels, labels=labels)
    found = networks.Network(network, seen.weights, f"npz:{tmp_path / 'some.npz'}", 4)
    monkeypatch.setattr(networks, "load", lambda *_, **__: found)
    set_up = hessian.set_up
    monkeypatch.setattr(
        hessian,
        "set_up",
        lambda config: {
            name: study._replace(one=pretended(study.one))
            for name, study in set_up(config).items()
        },
    )
    attacks = ("hessian", "random_best")
    config = dataclasses.replace(hessian.CONFIGS["smoke"], k=4, attacks=attacks)

    def run():
        hessian.main(config, tmp_path / "here")
        rows = (tmp_path / "here").rglob("*.parquet")
        return {path: path.stat().st_mtime_ns for path in rows}

    assert run() == run()
    numbers = json.loads((tmp_path / "here/summary.json").read_text())["numbers"]
    assert {number["value"] for number in numbers} >= {
        *("angle", "largest", "cross_entropy_0", "closed_form_differs"),
        *("ratio", "overlap", "gain", "angle_orthogonal", "map", "second_term"),
    }
    page = (tmp_path / "here/report.md").read_text()
    assert "paired by what is sampled" in page
    assert "No ReLU was found" not in page and "nan" not in page.split()
    # What is missing is no number, and no reason to fail.
    read = report.read
    monkeypatch.setattr(report, "read", lambda *a: [blank(row) for row in read(*a)])
    names = list(set_up(config))
    hessian_report.write(config, tmp_path / "here", names, shape=(4, 4, 3))
    page = (tmp_path / "here/report.md").read_text()
    assert "none n=0" in page and "nan" not in page.split()


def test_shuffled_weights_are_the_same_numbers_elsewhere(seen):
    mixed = networks.shuffled(seen.weights, KEY)
    for name in ("first", "second"):
        assert not np.array_equal(mixed[name], seen.weights[name])
        np.testing.assert_array_equal(
            np.sort(mixed[name].ravel()), np.sort(seen.weights[name].ravel())
        )
    np.testing.assert_array_equal(mixed["bias"], seen.weights["bias"])


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"images": 1}, "`images` is 1: it must be at least 2"),
        ({"probes": 1}, "`probes` is 1: it must be at least 2"),
        ({"budget": 11}, "`budget` is 11: it must be at least 12"),
        ({"values": 49}, r"`values` is 49: choose at most twice `steps`, .* \(48\)"),
        ({"attributions": ("smooth_gradient",)}, "take 'smooth_gradient_one_draw'"),
        ({"attributions": ("conductance",)}, "which explains a layer"),
        ({"attacks": ("hesian",)}, "`attacks` has 'hesian'.*mean 'hessian'"),
        ({"attacks": ("mass_center",)}, "`attacks` has 'mass_center'"),
        ({"lengths": ()}, "`lengths` is empty"),
        ({"radii": (float("nan"),)}, "`radii` has nan"),
    ],
)
def test_what_means_nothing_is_refused(knobs, message):
    for config in hessian.CONFIGS.values():
        hessian.check(config)
    with pytest.raises(ValueError, match=message):
        hessian.check(dataclasses.replace(hessian.CONFIGS["default"], **knobs))
