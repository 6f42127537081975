"""Climbs with a known end, and jobs that do not depend on their company."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from protojax import ascent, generation, images, objectives
from protojax.models import pretrained

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
SAME = lambda image: image
SHAPE = (6, 5, 2)
WEIGHTS = jnp.asarray(RNG.normal(size=SHAPE), jnp.float32)
GRAY = jnp.full(SHAPE, 0.5)
FIRST = jnp.asarray(RNG.normal(size=(60, 8)) / 4, jnp.float32)
SECOND = jnp.asarray(RNG.normal(size=(8, 4)), jnp.float32)


def fn(x):
    return jnp.tanh(x.ravel() @ FIRST) @ SECOND


def linear(x):
    return jnp.sum(WEIGHTS * x)


def test_oracle_7_4_a_linear_logit_ends_in_a_corner_of_the_box():
    run = lambda: generation.generate(linear, generation.pixels(GRAY), steps=40)
    out = run()
    np.testing.assert_array_equal(out.x, WEIGHTS > 0)
    assert float(out.value) == pytest.approx(float(jnp.sum(jnp.maximum(WEIGHTS, 0))))
    assert int(out.step) == 40 and not bool(out.stalled)
    np.testing.assert_allclose(out.strength, 40 * jnp.abs(WEIGHTS), rtol=1e-5)
    assert float(out.trace[0]) == pytest.approx(float(linear(GRAY)), abs=1e-4)
    jitted = jax.jit(run)()
    np.testing.assert_allclose(jitted.trace, out.trace, rtol=1e-5, atol=1e-5)


def test_oracle_7_4_a_linear_logit_ends_on_the_edge_of_a_ball():
    ball = ascent.within(GRAY, 0.1, norm="l2")
    canvas = generation.pixels(GRAY)._replace(project=ball)
    out = generation.generate(linear, canvas, steps=20, optimizer=optax.sgd(0.1))
    edge = GRAY + 0.1 * WEIGHTS / jnp.linalg.norm(WEIGHTS)
    np.testing.assert_allclose(out.x, edge, atol=1e-5)


@pytest.mark.parametrize("kind", ["pixels", "waves"])
def test_oracle_7_4_every_canvas_leads_to_the_optimum_of_a_quadratic(kind):
    height, width, _ = SHAPE
    bend, smooth = 1.0, 0.5

    def score(x):
        down, across = x - jnp.roll(x, 1, 0), x - jnp.roll(x, 1, 1)
        rough = jnp.sum(down**2) + jnp.sum(across**2)
        return linear(x) - bend / 2 * jnp.sum(x**2) - smooth / 2 * rough

    rows = 2 * np.pi * np.arange(height)[:, None, None] / height
    columns = 2 * np.pi * np.arange(width)[None, :, None] / width
    damping = bend + smooth * (4 - 2 * np.cos(rows) - 2 * np.cos(columns))
    spectrum = np.fft.fft2(np.asarray(WEIGHTS, np.float64), axes=(0, 1))
    best = np.fft.ifft2(spectrum / damping, axes=(0, 1)).real
    canvas = generation.Canvas(lambda _: 0 * GRAY, SAME, SAME)
    if kind == "waves":
        canvas = generation.fourier(SHAPE, colors=SAME)
    rate = optax.cosine_decay_schedule(0.1, 400)
    out = generation.generate(
        score, canvas, key=KEY, steps=400, optimizer=optax.adam(rate)
    )
    np.testing.assert_allclose(out.x, best, atol=2e-3)
    highest = float(np.sum(np.asarray(WEIGHTS) * best)) / 2
    assert float(out.value) == pytest.approx(highest, rel=1e-4)


def test_oracle_7_4_the_baseline_is_the_nearest_point_of_equal_logits():
    matrix = RNG.normal(size=(3, 12)) / 10
    offset = RNG.normal(size=3) / 100
    x0 = RNG.uniform(0.4, 0.6, size=(3, 4, 1))
    net = lambda x: matrix.astype("f4") @ x.ravel() + offset.astype("f4")
    centered = np.eye(3) - 1 / 3
    step = np.linalg.pinv(centered @ matrix)
    near = x0.ravel() - step @ (centered @ (matrix @ x0.ravel() + offset))
    assert near.min() > 0 and near.max() < 1
    start = jnp.asarray(x0, jnp.float32)
    rate = 1.5 / np.linalg.norm(centered @ matrix, 2) ** 2
    sgd = optax.sgd(rate)
    out = jax.jit(lambda: generation.baseline(net, start, optimizer=sgd, steps=300))()
    np.testing.assert_allclose(out.x.ravel(), near, atol=1e-4)
    of_the_paper = generation.probability_variance
    evened = jax.jit(lambda: generation.baseline(net, start, loss=of_the_paper))()
    p = jax.nn.softmax(net(evened.x))
    # Adam's last steps are no shorter than its first
    assert float(jnp.max(jnp.abs(p - 1 / 3))) < 2e-3
    assert float(evened.value) == pytest.approx(-float(jnp.var(p)), abs=1e-7)
    assert float(evened.value) >= -float(jnp.var(jax.nn.softmax(net(start))))


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.optimized
def test_a_confident_network_is_evened_out_by_the_variance_of_its_logits(data_folder):
    path = data_folder / "cifar10_resnet20.npz"
    model, variables = pretrained.cifar10_resnet(path, depth=20)
    net = functools.partial(model.apply, variables)
    noise = jax.random.uniform(jax.random.key(6), (32, 32, 3))

    @jax.jit
    @jax.vmap
    def furthest(rate):
        return [
            jnp.max(jnp.abs(jax.nn.softmax(net(out.x)) - 0.1))
            for out in (
                generation.baseline(
                    net, noise, loss=loss, optimizer=generation.adam(rate)
                )
                for loss in (generation.logit_variance, generation.probability_variance)
            )
        ]

    of_logits, of_probabilities = furthest(jnp.array([0.002, 0.005, 0.01, 0.02, 0.05]))
    assert jnp.all(of_logits < 1e-4), of_logits  # met 5e-6 and less
    # ties of two to four classes: which of them, rounding may decide
    assert jnp.all(of_probabilities > 0.14), of_probabilities


def test_oracle_7_4_a_bump_is_found_and_the_penalty_smooths_it():
    target = jnp.asarray(RNG.uniform(size=SHAPE), jnp.float32)

    @jax.jit
    @jax.vmap
    def at(weight):
        return generation.generate(
            lambda x: -jnp.sum((x - target) ** 2),
            generation.pixels(GRAY),
            steps=300,
            optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 300)),
            penalty=lambda x: weight * generation.high_frequency(x),
        )

    found = at(jnp.array([0.0, 3.0, 10.0, 30.0]))
    np.testing.assert_allclose(found.x[0], target, atol=2e-3)
    rough = jax.vmap(generation.high_frequency)(found.x)
    assert jnp.all(rough[1:] < rough[:-1]), rough
    assert float(found.value[0]) > float(found.value[1])  # less penalty, more score


def test_the_last_iterate_comes_out_or_the_best_under_select():
    target = lambda x: -jnp.sum((x - 0.51) ** 2)  # Adam's first step goes past it
    canvas = generation.pixels(GRAY)

    @jax.jit
    def both():
        last = generation.generate(target, canvas, steps=2)
        return last, generation.generate(target, canvas, steps=2, select=target)

    last, best = both()
    np.testing.assert_array_equal(best.x, GRAY)
    assert int(best.step) == 0 and int(last.step) == 2
    assert float(best.value) == pytest.approx(-60 * 0.01**2, rel=1e-4)
    assert float(last.value) == pytest.approx(float(target(last.x)), rel=1e-4)
    assert float(best.value) > float(last.value)


def job(root, y, number):
    return generation.generate(
        objectives.logit(fn, y),
        generation.pixels(GRAY),
        key=jax.random.fold_in(root, number),
        steps=6,
        transform=lambda x, *, key: x + 0.1 * jax.random.normal(key, x.shape),
    )


def test_oracle_7_9_jobs_do_not_depend_on_batch_order_or_devices():
    numbers, classes = jnp.arange(8), jnp.arange(8) % 4
    batched = jax.jit(jax.vmap(job, (None, 0, 0)))
    together = batched(KEY, classes, numbers)
    backwards = batched(KEY, classes[::-1], numbers[::-1])
    np.testing.assert_array_equal(together.x, backwards.x[::-1])
    mesh = jax.make_mesh((4,), ("jobs",), axis_types=(jax.sharding.AxisType.Auto,))
    each = jax.P("jobs")
    spread = jax.shard_map(
        jax.vmap(job, (None, 0, 0)),
        mesh=mesh,
        in_specs=(jax.P(), each, each),
        out_specs=each,
        check_vma=False,
    )
    in_twos = jax.jit(spread)(KEY, classes, numbers)
    assert len(in_twos.x.sharding.device_set) == 4
    # another batch is another program, whose sums are in another order
    np.testing.assert_allclose(together.x, in_twos.x, atol=2e-5)
    assert not np.allclose(together.x[0], together.x[4], atol=1e-3)  # another seed


def test_oracle_7_9_the_scan_is_a_loop_in_python():
    steps, transform = 6, functools.partial(images.random_affine, fill=0.5)
    score, canvas = objectives.logit(fn, 1), generation.fourier(SHAPE)
    run = lambda: generation.generate(
        score,
        canvas,
        key=KEY,
        steps=steps,
        transform=transform,
        penalty=generation.high_frequency,
    )
    out = jax.jit(run)()
    first, rest = jax.random.split(KEY)
    params = canvas.start(first)
    adam = generation.adam()
    memory, strength = adam.init(params), 0

    @jax.jit
    def step(params, memory, key):
        def climbed(params, extra):
            image = canvas.render(params)
            seen = score(transform(image + extra, key=key))
            return seen - generation.high_frequency(image)

        value, (slope, pixels) = jax.value_and_grad(climbed, (0, 1))(params, 0 * GRAY)
        change, memory = adam.update(jax.tree.map(jnp.negative, slope), memory, params)
        return optax.apply_updates(params, change), memory, value, jnp.abs(pixels)

    for number in range(steps):
        # of the step alone: fewer steps in all are the beginning of more
        key = jax.random.fold_in(rest, number)
        params, memory, value, pixels = step(params, memory, key)
        strength += pixels
        assert float(out.trace[number]) == pytest.approx(float(value), abs=1e-4)
    np.testing.assert_allclose(out.x, canvas.render(params), atol=1e-5)
    np.testing.assert_allclose(out.strength, strength, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(out.value, score(out.x), atol=1e-5)


@pytest.mark.optimized
def test_memory_grows_with_the_steps_by_their_trace_alone():
    def temporary(steps):
        run = lambda x: generation.generate(linear, generation.pixels(x), steps=steps)
        compiled = jax.jit(run).lower(GRAY).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = temporary(10), temporary(1010)
    assert many - few < 16 * 1000  # bytes: a value and a flag for each


def test_several_draws_are_averaged():
    seen = generation.generate(
        linear,
        generation.pixels(GRAY),
        key=KEY,
        steps=1,
        draws=3,
        transform=lambda x, *, key: jax.random.uniform(key) * x,
    )
    _, rest = jax.random.split(KEY)
    keys = jax.random.split(jax.random.fold_in(rest, 0), 3)
    mean = np.mean([jax.random.uniform(k) for k in keys])
    assert float(seen.trace[0]) == pytest.approx(mean * float(linear(GRAY)), rel=1e-4)


def test_a_group_that_must_differ_differs_more():
    canvas = generation.group(generation.fourier(SHAPE), 3)
    features = lambda x: jax.nn.relu(x.reshape(10, 6) @ FIRST[:6])

    @jax.jit
    @jax.vmap
    def spread(weight):
        def score(several):
            shown = jnp.mean(jax.vmap(objectives.logit(fn, 1))(several))
            apart = generation.diversity(jax.vmap(features)(several))
            return shown + weight * apart

        out = generation.generate(score, canvas, key=KEY, steps=60)
        return generation.diversity(jax.vmap(features)(out.x))

    alike, apart = spread(jnp.array([0.0, 5.0]))
    assert float(apart) > float(alike) + 0.05


def test_constant_scores_are_reported_even_where_the_penalty_moves():
    start = jnp.asarray(RNG.uniform(size=SHAPE), jnp.float32)
    constant = lambda x: jnp.sum(0 * x) + 3
    climbed = functools.partial(
        generation.generate,
        constant,
        generation.pixels(start),
        steps=3,
        penalty=generation.high_frequency,
    )
    with pytest.raises(ascent.Stalled, match="had no gradient at any step"):
        climbed()
    assert bool(jax.jit(climbed)().stalled)
    broken = lambda x: jnp.log(jnp.sum(x - 0.6))
    with pytest.raises(FloatingPointError, match="NaN before step 1 of 2"):
        generation.generate(broken, generation.pixels(GRAY), steps=2)
    at_last = lambda x: jnp.where(x[0, 0, 0] > 0.52, jnp.nan, jnp.sum(x))
    with pytest.raises(FloatingPointError, match="came out after 1 steps is NaN"):
        generation.generate(at_last, generation.pixels(GRAY), steps=1)


def test_bad_knobs_are_named():
    climbed = functools.partial(generation.generate, linear, generation.pixels(GRAY))
    turned = generation.PRESETS["s"]
    refused = {
        "`transform` is random: pass `key`": {"transform": turned},
        "`steps` is 0": {"steps": 0},
        "`steps` is -3": {"steps": -3},
        "`redirect` is -1": {"redirect": -1},
        "`draws` is 0": {"draws": 0, "transform": turned, "key": KEY},
        "`draws` is 2: there is no `transform`": {"draws": 2},
    }
    for message, knobs in refused.items():
        with pytest.raises(ValueError, match=message):
            climbed(**knobs)
    with pytest.raises(ValueError, match=r"outside of \[0.0, 1.0\]"):
        generation.baseline(fn, 255 * GRAY)
    with pytest.raises(ValueError, match="pass one example"):
        generation.prototype(linear, GRAY[None], key=KEY)


def test_what_mattered_little_is_drawn_transparent():
    strength = jnp.asarray(RNG.uniform(size=(5, 4, 3)), jnp.float32)
    mean = np.asarray(strength).mean(-1)
    top = np.quantile(mean, 0.8)
    found = generation.transparency(strength)
    np.testing.assert_allclose(found, np.minimum(mean, top) / top, rtol=1e-5)
    assert not generation.transparency(jnp.zeros((2, 2, 3))).any()
