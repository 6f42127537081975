"""One list of everything, on every kind of network, under `jit` and `vmap`.

What is added to these lists is held to the contract: shapes, finite values, one trace.
Each network is compiled once for all attributions, objectives or metrics. Attacks are
in test_contract_attacks.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import activations, attributions, generation, metrics, objectives
from tests import contract

SIZE, RADIUS = contract.SIZE, contract.RADIUS
KEY, X, BATCH = contract.KEY, contract.X, contract.BATCH


ATTRIBUTIONS = {
    "gradient": attributions.gradient,
    "input_x_gradient": attributions.input_x_gradient,
    "integrated_gradients": functools.partial(
        attributions.integrated_gradients, steps=3
    ),
    "smooth_gradient": functools.partial(
        attributions.smooth_gradient, key=KEY, samples=3
    ),
    "deep_lift": attributions.deep_lift,
    "lrp": attributions.lrp,
    "deep_taylor": attributions.deep_taylor,
    "guided_gradient": attributions.guided_gradient,
}
OF_A_LAYER = {
    "grad_cam": attributions.grad_cam,
    "guided_grad_cam": attributions.guided_grad_cam,
    "class_activation": attributions.class_activation,
    "conductance": functools.partial(attributions.conductance, steps=3),
}
NOT_FOR = {  # the transformer: it has no ReLU, and tokens in place of a feature map
    "guided_gradient": "no ReLU",
    "grad_cam": "Grad-CAM needs a feature map",
    "guided_grad_cam": "Grad-CAM needs a feature map",
}


@pytest.fixture(params=contract.KINDS)
def net(request):
    return request.param, contract.built(request.param)


def explained(attribution, fn, x):
    y = jnp.argmax(fn(x))
    return attribution(lambda z: fn(z)[y], x)


def test_attributions_keep_the_contract(net):
    kind, fn = net
    skipped = NOT_FOR if kind == "transformer" else {}
    calls = ATTRIBUTIONS | {
        name: functools.partial(attribution, layer=contract.LAYERS[kind])
        for name, attribution in OF_A_LAYER.items()
    }

    def all_of(x):
        return {
            name: explained(attribution, fn, x)
            for name, attribution in calls.items()
            if name not in skipped
        }

    counted, traces = contract.counting(all_of)
    batched = jax.jit(jax.vmap(counted))
    found = batched(BATCH)
    batched(BATCH / 2)
    assert len(traces) == 1
    one = jax.jit(all_of)(X)
    name = contract.LAYERS[kind]
    layer = jax.eval_shape(activations.record(fn, [name]), X)[1][name]
    shapes = {"conductance": layer.shape, "class_activation": layer.shape[:-1]}
    for name, several in found.items():
        assert several.shape == (2, *shapes.get(name, X.shape)), name
        assert jnp.all(jnp.isfinite(several)) and jnp.any(several != 0), name
        # float32, summed in another order by the batched program
        scale = jnp.max(jnp.abs(one[name]))
        np.testing.assert_allclose(several[0], one[name], atol=1e-4 * scale)
    for name, why in skipped.items():
        with pytest.raises(ValueError, match=why):
            jax.eval_shape(functools.partial(explained, calls[name], fn), X)


def test_maps_are_non_negative_and_sum_to_one():
    maps = jax.vmap(attributions.heatmap)(jax.random.normal(KEY, (5, 4, 6, 3)))
    assert maps.shape == (5, 4, 6) and jnp.all(maps >= 0)
    np.testing.assert_allclose(jnp.sum(maps, axis=(1, 2)), 1, rtol=1e-5)


def test_everything_public_is_on_a_list():
    quadratures = {"Quadrature", "left", "right", "midpoint", "trapezoid"}
    others = quadratures | {"gauss_legendre", "heatmap", "igos", "mask_penalty"}
    assert {*attributions.__all__} - others == {*ATTRIBUTIONS, *OF_A_LAYER}
    listed = {*METRICS, *OF_A_NETWORK, *AGAINST_TRUTH, *OF_PROTOTYPES}
    assert {*metrics.__all__} - {"Curve", "class_entry"} == listed
    built = {
        name
        for name, value in vars(objectives).items()
        if getattr(value, "__module__", "") == objectives.__name__
        and not name.startswith("_")
    }
    assert built - {"label_kept", "label_regained"} == OBJECTIVES


def objectives_at(fn, x):
    """A function of an image that gives all objectives, and looks at each map once."""
    explain, twin, _ = contract.explanations(fn, x)
    a, y = explain(x), jnp.argmax(fn(x))

    def at(z):
        saliency, logits = twin(z), fn(z)
        seen, scores = lambda _: saliency, lambda _: logits
        similar, rows = lambda _: saliency[..., None], jnp.arange(SIZE)[:, None]
        upper, lower = (jnp.broadcast_to(r, a.shape) for r in (rows < 3, rows > 4))
        built = {  # `label_kept` is not to be climbed, `label_regained` of two kinds
            "linear": objectives.linear(seen, a),
            "top_k": objectives.top_k(seen, a, k=9),
            "mass_center": objectives.mass_center(seen, jnp.array([1.0, 0.0])),
            "center_distance": objectives.center_distance(seen, jnp.zeros(2)),
            "target_map": objectives.target_map(seen, a[::-1]),
            "logit": objectives.logit(scores, y),
            "probability": objectives.probability(scores, y),
            "cross_entropy": objectives.cross_entropy(scores, y),
            "margin": objectives.margin(scores, y),
            "prototype_moved": objectives.prototype_moved(
                similar, prototype=0, target=upper, source=lower
            ),
            "prototype_absent": objectives.prototype_absent(similar, prototype=0),
        }
        return {name: objective(z) for name, objective in built.items()}

    return at


OBJECTIVES = {"linear", "top_k", "mass_center", "center_distance", "target_map"}
OBJECTIVES |= {"logit", "probability", "cross_entropy", "margin"}
OBJECTIVES |= {"prototype_moved", "prototype_absent"}


def test_objectives_keep_the_contract(net):
    _, fn = net

    def all_of(x):
        label, at = jnp.argmax(fn(x)), objectives_at(fn, x)
        values, slopes = at(x), jax.jacrev(at)(x)
        lengths = jax.tree.map(jnp.linalg.norm, slopes)
        steps = [1e-3 * slopes[name] / lengths[name] for name in values]
        above = jax.vmap(at)(x[None] + jnp.stack(steps))
        climbed = {
            name: {"value": value, "length": lengths[name], "up": above[name][place]}
            for place, (name, value) in enumerate(values.items())
        }
        kept = objectives.label_kept(jnp.sum, fn, x)
        other = {"same": jnp.argmax(fn(1 - x)) == label, "value": kept(1 - x)}
        return climbed, {"here": kept(x) - jnp.sum(x), "there": other}

    counted, traces = contract.counting(all_of)
    program = jax.jit(jax.vmap(counted))
    program(BATCH / 2)
    climbed, kept = program(BATCH)
    assert len(traces) == 1
    assert {*climbed} == OBJECTIVES
    for name, out in climbed.items():
        assert out["value"].shape == (2,), name
        assert jnp.all(jnp.isfinite(out["length"]) & (out["length"] > 0)), name
        assert jnp.all(out["up"] > out["value"]), name
    there = jnp.where(kept["there"]["same"], jnp.sum(1 - BATCH, (1, 2, 3)), -jnp.inf)
    np.testing.assert_allclose(kept["here"], 0, atol=1e-4)
    np.testing.assert_allclose(kept["there"]["value"], there, rtol=1e-5)


def test_visualizations_keep_the_contract(net):
    kind, fn = net

    def shown(x):
        score = objectives.logit(fn, jnp.argmax(fn(x)))
        unit = generation.channel(fn, contract.LAYERS[kind], 1)
        both = lambda z: score(z) + unit(z)
        return generation.generate(both, generation.pixels(x), steps=2)

    counted, traces = contract.counting(shown)
    program = jax.jit(jax.vmap(counted))
    program(BATCH / 2)
    out = program(BATCH)
    assert len(traces) == 1
    assert out.x.shape == out.strength.shape == BATCH.shape
    assert jnp.all((out.x >= 0) & (out.x <= 1)) and not out.stalled.any()
    assert out.trace.shape == (2, 2) and jnp.all(out.value > out.trace[:, 0])


METRICS = {  # of two maps, and what they are of two equal ones
    "top_k_intersection": (functools.partial(metrics.top_k_intersection, k=9), 1.0),
    "rank_correlation": (metrics.rank_correlation, 1.0),
    "kendall": (metrics.kendall, 1.0),
    "center_shift": (metrics.center_shift, 0.0),
    "truncated_center_shift": (metrics.truncated_center_shift, 0.0),
    "linf": (metrics.linf, 0.0),
    "ssim": (functools.partial(metrics.ssim, data_range=1.0), 1.0),
}


OF_A_NETWORK = {"confidence", "deletion", "insertion", "max_sensitivity"}
OF_A_NETWORK |= {"fidelity", "local_lipschitz", "center_of_mass", "top_k_mask"}


AGAINST_TRUTH = {  # of a map and a mask, and what they are where the two agree
    "activation_precision": (metrics.activation_precision, 1.0),
    "high_inside": (metrics.high_inside, 1.0),
    "inside_outside_difference": (metrics.inside_outside_difference, 1.0),
    "outside_inside_ratio": (metrics.outside_inside_ratio, 0.0),
    "pointing_energy": (metrics.pointing_energy, 1.0),
    "pointing_game": (metrics.pointing_game, 1.0),
    "object_share": (metrics.object_share, 1.0),
    "background_share": (metrics.background_share, 0.0),
    "mask_overlap": (metrics.mask_overlap, 1.0),
}
OF_PROTOTYPES = {  # counts and boxes, tested by themselves
    *("consistency", "duplicates", "explanation_size", "part_hits", "part_rates"),
    *("patch_box", "peak_box", "purity", "stability", "high_mask"),
    *("accuracy_change", "activation_change", "location_change", "rank_change"),
}


def test_metrics_against_a_truth_keep_the_contract():
    inside = jnp.zeros((2, SIZE, SIZE), bool).at[:, 2:4, 1:6].set(True)
    draws = jax.random.uniform(KEY, (2, SIZE, SIZE))

    @jax.jit
    @jax.vmap
    def all_of(a, inside):
        return {
            name: (metric(inside.astype(float), inside), metric(a, inside))
            for name, (metric, _) in AGAINST_TRUTH.items()
        }

    for name, (agree, other) in all_of(draws, inside).items():
        best = AGAINST_TRUTH[name][1]
        np.testing.assert_allclose(agree, jnp.full(2, best), err_msg=name)
        assert other.shape == (2,) and jnp.all(jnp.isfinite(other)), name
        assert jnp.all((other <= best) if best else (other >= best)), name


def test_metrics_keep_the_contract(net):
    _, fn = net

    def all_of(x):
        explain, _, _ = contract.explanations(fn, x)
        a, b, y = explain(x), explain(1 - x), jnp.argmax(fn(x))
        near = {"radius": RADIUS, "key": KEY, "samples": 2}
        pairs = {
            name: (metric(a, a), metric(a, b)) for name, (metric, _) in METRICS.items()
        }
        quality = {
            "confidence": metrics.confidence(fn, x, y),
            "without": metrics.confidence(fn, jnp.zeros_like(x), y),
            "deletion": metrics.deletion(fn, x, a, y, steps=4),
            "insertion": metrics.insertion(fn, x, a, y, steps=4),
            "fidelity": metrics.fidelity(
                objectives.logit(fn, y), x, a, key=KEY, samples=4
            ),
            "max_sensitivity": metrics.max_sensitivity(explain, x, **near),
            "local_lipschitz": metrics.local_lipschitz(explain, x, **near),
            "center_of_mass": metrics.center_of_mass(a),
            "top_k_mask": metrics.top_k_mask(a, k=9),
        }
        return pairs, quality

    counted, traces = contract.counting(all_of)
    program = jax.jit(jax.vmap(counted))
    program(BATCH / 2)
    pairs, found = program(BATCH)
    assert len(traces) == 1
    assert {*found} == OF_A_NETWORK | {"without"}
    for name, (_, best) in METRICS.items():
        same, other = pairs[name]
        np.testing.assert_allclose(same, best, atol=1e-6, err_msg=name)
        assert other.shape == (2,) and jnp.all(jnp.isfinite(other)), name
        assert jnp.all((other < best) if best else (other >= best)), name
    first, last = found["confidence"], found["without"]
    assert jnp.all((first > 0) & (first < 1))
    for name, ends in (("deletion", (first, last)), ("insertion", (last, first))):
        values, area = found[name]
        np.testing.assert_allclose(values[:, [0, -1]].T, ends, rtol=1e-4)
        assert jnp.all((values > 0) & (values < 1)) and jnp.all((area > 0) & (area < 1))
    assert found["fidelity"].shape == (2,)
    assert jnp.all(jnp.abs(found["fidelity"]) <= 1 + 1e-5)  # rounding
    for name in ("max_sensitivity", "local_lipschitz"):
        assert found[name].shape == (2,) and jnp.all(jnp.isfinite(found[name])), name
        assert jnp.all(found[name] >= 0), name
    center = found["center_of_mass"]
    assert center.shape == (2, 2) and jnp.all((center >= 0) & (center <= SIZE - 1))
    assert jnp.all(jnp.sum(found["top_k_mask"], (1, 2)) == 9)
