"""Waves, phases and colors, against closed forms and NumPy's transforms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import generation

KEY = jax.random.key(0)
SAME = lambda image: image


def test_oracle_7_1_the_table_of_amplitudes():
    table = [[16, 16, 8], [16, 11.3137, 7.1554], [8, 7.1554, 5.6569]]
    table.append(table[1])
    table[3] = [16, 11.3137, 7.1554]
    np.testing.assert_allclose(generation.amplitudes((4, 4)), table, rtol=1e-5)


@pytest.mark.parametrize("decay", [1.0, 1.5])
def test_oracle_7_1_a_coefficient_is_a_wave(decay):
    n, k, a = 16, 3, 0.7
    single = np.zeros((4, n, n // 2 + 1, 1))
    for number, place in enumerate([(0, k), (k, 0), (0, n // 2), (0, 0)]):
        single[number][place] = a
    with jax.enable_x64(True):
        canvas = generation.fourier((n, n, 1), decay=decay, colors=SAME)
        render = jax.jit(jax.vmap(lambda real: canvas.render((real, 0 * real))))
        across, down, fastest, mean = np.asarray(render(single))[..., 0]
    slower = n ** (decay - 1)
    at = np.cos(2 * np.pi * k * np.arange(n) / n)
    expected = np.tile(a * slower / (2 * k**decay) * at, (n, 1))
    np.testing.assert_allclose(across, expected, atol=1e-14)
    np.testing.assert_allclose(down, expected.T / 2, atol=1e-14)
    signs = np.tile((-1.0) ** np.arange(n), (n, 1))
    alternating = a * slower / (4 * (n / 2) ** decay) * signs
    np.testing.assert_allclose(fastest, alternating, atol=1e-14)
    np.testing.assert_allclose(mean, a * slower / 4, atol=1e-14)


@pytest.mark.parametrize("shape", [(6, 8, 3), (5, 7, 1), (4, 1, 2), (7, 4, 3)])
def test_oracle_7_1_F6_images_survive_the_round_trip(shape):
    x = np.random.default_rng(0).normal(size=shape)
    canvas = generation.fourier(shape, colors=SAME)
    again = jax.jit(lambda x: canvas.render(generation.fourier_params(x)))
    single = again(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(single, x, atol=1e-5)
    with jax.enable_x64(True):
        canvas = generation.fourier(shape, colors=SAME)
        again = jax.jit(lambda x: canvas.render(generation.fourier_params(x)))
        double = again(jnp.asarray(x))
    np.testing.assert_allclose(double, x, atol=1e-13)


@pytest.mark.parametrize("shape", [(6, 8, 1), (5, 7, 1)])
def test_oracle_7_1_gradients_are_the_transform_of_those_of_pixels(shape):
    height, width, _ = shape
    rng = np.random.default_rng(0)
    slope = rng.normal(size=shape)
    with jax.enable_x64(True):
        canvas = generation.fourier(shape, colors=SAME)
        params = jnp.asarray(rng.normal(size=(2, height, width // 2 + 1, 1)))
        loss = lambda params: jnp.sum(slope * canvas.render((params[0], params[1])))
        real, imaginary = np.asarray(jax.jit(jax.grad(loss))(params))[..., 0]
        scale = np.asarray(generation.amplitudes((height, width)))
    twice = np.full(width // 2 + 1, 2.0)
    twice[0] = 1
    twice[-1] = 1 if width % 2 == 0 else 2
    pixels = np.fft.rfft2(slope[..., 0])
    expected = twice * scale / (4 * height * width) * pixels
    np.testing.assert_allclose(real + 1j * imaginary, expected, atol=1e-13)


def test_oracle_7_1_pixels_at_the_start_have_the_known_spread():
    known = {32: 0.01564, 64: 0.01729, 128: 0.01880, 224: 0.01993, 512: 0.02150}
    for size, deviation in known.items():
        square = np.asarray(generation.amplitudes((size, size)), np.float64) ** 2
        edges = square[:, 0].sum() + square[:, -1].sum()
        variance = (edges + 4 * square[:, 1:-1].sum()) * 1e-4 / (16 * size**4)
        assert np.sqrt(variance) == pytest.approx(deviation, abs=1e-5)
    canvas = generation.fourier((32, 32, 3), colors=SAME)
    draw = jax.jit(jax.vmap(lambda key: canvas.render(canvas.start(key))))
    images = np.asarray(draw(jax.random.split(KEY, 200)))
    # 600 spectra, of which ten coefficients hold half of the energy: 3 % at 2 sigma
    assert images.std() == pytest.approx(known[32], rel=0.03)


def test_oracle_7_1_spectra_at_the_start_fall_with_the_frequency():
    n, draws = 128, 16
    canvas = generation.fourier((n, n, 3), colors=SAME)
    draw = jax.jit(jax.vmap(lambda key: canvas.render(canvas.start(key))))
    images = np.asarray(draw(jax.random.split(KEY, draws)))
    sizes = np.abs(np.fft.rfft2(images, axes=(1, 2))).mean((0, 3))
    radius = n * np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None])
    # magnitudes are Rayleigh's, of which 48 have a mean that is 7.5 % off at 1 sigma
    assert sizes[0, 4] == pytest.approx(12.834, rel=0.25)
    inside = (radius >= 2) & (radius <= 60)
    inside[:, 0] = False
    slope = np.polyfit(np.log(radius[inside]), np.log(sizes[inside]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.01)


@pytest.mark.parametrize(
    ("decay", "share"), [(0, 0.0120), (0.85, 0.3605), (1, 0.5300), (1.5, 0.9211)]
)
def test_oracle_7_1_long_waves_have_their_share_of_the_energy(decay, share):
    n = 128
    energy = np.asarray(generation.amplitudes((n, n), decay=decay), np.float64) ** 2
    energy[:, 1:-1] *= 2  # of both halves of the spectrum
    energy[0, 0] = 0
    radius = n * np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None])
    found = energy[radius < 8.5][radius[radius < 8.5] <= 8.001].sum() / energy.sum()
    assert found == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize("width", [6, 7])
def test_oracle_7_1_columns_that_mirror_themselves_are_made_hermitian(width):
    rng = np.random.default_rng(0)
    half = rng.normal(size=(5, width // 2 + 1, 2, 2)) @ np.array([1, 1j])
    with jax.enable_x64(True):
        both = jax.jit(
            lambda half: (
                generation.inverse(half, width=width),
                generation.hermitian(half, width=width),
            )
        )
        image, made = map(np.asarray, both(half))
    np.testing.assert_allclose(np.fft.rfft2(image, axes=(0, 1)), made, atol=1e-13)
    inside = slice(1, (width + 1) // 2)
    np.testing.assert_allclose(made[:, inside], half[:, inside])
    np.testing.assert_allclose(image, np.fft.irfft2(half, (5, width), (0, 1)))
    with pytest.raises(ValueError, match="`spectrum` has 4 columns, and that of an im"):
        generation.inverse(jnp.zeros((5, 4, 1), complex), width=8)


def test_oracle_7_1_odd_widths_are_the_explicit_sum():
    height, width = 3, 5
    rng = np.random.default_rng(0)
    real, imaginary = rng.normal(size=(2, height, 3, 1))
    canvas = generation.fourier((height, width, 1), colors=SAME)
    image = jax.jit(canvas.render)((real, imaginary))[..., 0]
    scale = np.asarray(generation.amplitudes((height, width)))
    coefficients = scale * (real + 1j * imaginary)[..., 0]
    rows, columns = np.indices((height, width))
    expected = np.zeros((height, width))
    for ky in range(height):
        for kx in range(3):
            turn = np.exp(2j * np.pi * (ky * rows / height + kx * columns / width))
            both = 1 if kx == 0 else 2
            expected += both * (coefficients[ky, kx] * turn).real
    np.testing.assert_allclose(image, expected / (4 * height * width), atol=1e-5)


def test_oracle_7_2_colors_are_lucids():
    known = [[0.562829, 0.194825, 0.043295], [0.584476, 0, -0.108236]]
    known.append([0.584476, -0.194825, 0.064942])
    np.testing.assert_allclose(generation.CORRELATION, known, atol=1e-6)
    first = generation.correlate(jnp.array([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(first, [0.562829, 0.584476, 0.584476], atol=1e-6)
    np.testing.assert_allclose(first / first[1], [0.963, 1, 1], atol=1e-3)
    x = np.random.default_rng(0).uniform(0.01, 0.99, size=(5, 4, 3)).astype(np.float32)

    @jax.jit
    def round_trips(x):
        linear = generation.correlate(generation.decorrelate(x))
        return linear, generation.to_rgb(generation.from_rgb(x))

    for again in round_trips(x):
        np.testing.assert_allclose(again, x, atol=1e-6)
    gray = x[..., :1]
    np.testing.assert_array_equal(generation.decorrelate(gray), gray)
    expected = 1 / (1 + np.exp(-gray))
    np.testing.assert_allclose(generation.to_rgb(gray), expected, rtol=1e-6)


def test_oracle_7_2_colors_of_noise_are_spread_as_known():
    noise = np.random.default_rng(0).normal(size=(40000, 3)).astype(np.float32)
    draws = np.asarray(generation.to_rgb(jnp.asarray(noise)))
    # the error of a deviation is 0.35 % of it at one sigma
    np.testing.assert_allclose(draws.std(0), [0.138, 0.138, 0.143], rtol=0.015)
    np.testing.assert_allclose(draws.mean(0), 0.5, atol=0.003)
    red = np.quantile(draws[:, 0], [0.01, 0.99])
    np.testing.assert_allclose(red, [0.197, 0.803], atol=0.01)


def magnitudes(image):
    return np.abs(np.fft.rfft2(np.asarray(image, np.float64), axes=(0, 1)))


def natural(shape, seed=0):
    """Magnitudes of an image, which are symmetric where columns mirror themselves."""
    return magnitudes(np.random.default_rng(seed).uniform(size=shape))


@pytest.mark.parametrize("shape", [(6, 8, 3), (5, 7, 2)])
def test_oracle_7_3_magnitudes_are_the_template(shape):
    template = natural(shape)
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        phase = jnp.asarray(rng.normal(size=template.shape))
        of_phase = jax.jit(functools.partial(generation.of_phase, width=shape[1]))
        image = of_phase(phase, jnp.asarray(template))
    ratio = magnitudes(image) / template
    alone = np.zeros(ratio.shape[:2], bool)
    columns = [0] if shape[1] % 2 else [0, -1]
    rows = [0] if shape[0] % 2 else [0, shape[0] // 2]
    alone[np.ix_(rows, columns)] = True
    np.testing.assert_allclose(ratio[~alone], 1, atol=1e-13)
    cosines = np.abs(np.cos(np.asarray(phase)))[alone]
    np.testing.assert_allclose(ratio[alone], cosines, atol=1e-13)


def test_oracle_7_3_a_ramp_of_phases_shifts_the_image():
    x = np.random.default_rng(0).normal(size=(6, 8, 2))
    with jax.enable_x64(True):
        of_phase = jax.jit(functools.partial(generation.of_phase, width=8))
        spectrum = np.fft.rfft2(x, axes=(0, 1))
        for shift in ((1, 0), (2, 3), (-1, 5)):
            turns = np.arange(6)[:, None] * shift[0] / 6 + np.arange(5) * shift[1] / 8
            phase = np.angle(spectrum) - 2 * np.pi * turns[..., None]
            moved = of_phase(jnp.asarray(phase), jnp.abs(spectrum))
            np.testing.assert_allclose(moved, np.roll(x, shift, (0, 1)), atol=1e-12)


def test_oracle_7_3_images_are_standardized_and_so_are_phases():
    template = natural((8, 8, 3))
    with jax.enable_x64(True):
        canvas = generation.phases(jnp.asarray(template), width=8, colors=SAME)
        phase = jnp.asarray(np.random.default_rng(1).normal(size=template.shape))
        render = jax.jit(canvas.render)
        image, moved = np.asarray(render(phase)), np.asarray(render(7 * phase + 3))
    assert image.mean() == pytest.approx(0, abs=1e-12)
    assert image.std() == pytest.approx(1, abs=1e-3)
    ratio = (magnitudes(image) / template)[:, 1:-1]
    np.testing.assert_allclose(ratio, ratio[0, 0, 0], rtol=1e-10)
    # but for the 1e-5 that is added to deviations
    np.testing.assert_allclose(moved, image, atol=1e-3)


def test_oracle_7_3_climbing_leaves_the_magnitudes_alone():
    template = natural((8, 8, 3))
    canvas = generation.phases(jnp.asarray(template, jnp.float32), width=8, colors=SAME)
    weights = jax.random.normal(KEY, (8, 8, 3))
    score = lambda x: jnp.sum(weights * x)
    out = jax.jit(lambda: generation.generate(score, canvas, key=KEY, steps=5))()
    ratio = (magnitudes(out.x) / template)[:, 1:-1]
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-3)
    assert float(out.value) > float(out.trace[0])


def test_a_template_is_the_mean_over_images_in_decorrelated_channels():
    images = np.random.default_rng(0).uniform(size=(3, 4, 6, 3)).astype(np.float32)
    channels = images @ np.linalg.inv(generation.CORRELATION).T
    expected = np.abs(np.fft.rfft2(channels, axes=(1, 2))).mean(0)
    np.testing.assert_allclose(generation.template(images), expected, atol=1e-4)
    with pytest.raises(ValueError, match="`natural` is uint8: pass float32 pixels"):
        generation.template(np.uint8(255 * images))
    law = np.asarray(generation.power_law((8, 8, 3), exponent=1.3))
    np.testing.assert_allclose(law[0, 2] / law[0, 1], 2**-1.3, rtol=1e-5)
    assert (law[0, 0] == 0).all()


def test_a_group_is_its_members():
    canvas = generation.fourier((4, 5, 3))
    several = generation.group(canvas, 3)

    @jax.jit
    def both():
        params = several.start(KEY)
        second = canvas.render(jax.tree.map(lambda leaf: leaf[1], params))
        return several.render(params), second

    images, second = both()
    assert images.shape == (3, 4, 5, 3)
    np.testing.assert_allclose(images[1], second, atol=1e-6)
    assert not np.allclose(images[0], images[1], atol=1e-3)  # each starts elsewhere
    pixels = generation.group(generation.pixels(jnp.full((1, 1, 1), 0.5)), 2)
    assert pixels.project(pixels.start(None) + 1).ravel().tolist() == [1, 1]


def test_bad_canvases_are_named():
    x = jnp.full((2, 2, 3), 0.5)
    half = jnp.ones((8, 5, 3))
    refused = {
        r"`x` has pixels from 0 to 255, outside of \[0.0, 1.0\]": lambda: (
            generation.pixels(
                jnp.zeros((1, 1, 1)).at[:].set(0).repeat(2, 0).at[0].set(255)
            )
        ),
        "`bounds` are ": lambda: generation.pixels(x, bounds=(1.0, 0.0)),
        "pass one example": lambda: generation.pixels(x[None]),
        "NaN pixels": lambda: generation.pixels(x.at[0].set(jnp.nan)),
        r"`shape` is \(8, 8\)": lambda: generation.fourier((8, 8)),
        "`fourier` starts at random: pass `key`": lambda: generation.fourier(
            (8, 8, 3)
        ).start(None),
        "`phases` starts at random: pass `key`": lambda: generation.phases(
            half, width=8
        ).start(None),
        "an image of width 10 has a half spectrum of 6 columns": lambda: (
            generation.phases(half, width=10)
        ),
        "negative or not finite": lambda: generation.phases(-half, width=8),
        "zero everywhere": lambda: generation.phases(0 * half, width=8),
        r"`bounds` are \(1.0, 1.0\)": lambda: generation.phases(
            half, width=8, bounds=(1.0, 1.0)
        ),
        "`natural` has leading axes": lambda: generation.template(
            jnp.zeros((0, 8, 8, 3))
        ),
        "`size` is 0": lambda: generation.group(generation.pixels(x), 0),
    }
    for message, call in refused.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_canvases_render_in_float32_and_are_differentiable():
    for canvas in (
        generation.fourier((4, 5, 3)),
        generation.phases(generation.power_law((4, 4, 3)), width=4),
    ):
        params = canvas.start(KEY)
        image, slope = jax.jit(
            lambda p, c=canvas: (
                c.render(p),
                jax.grad(lambda q: c.render(q)[0, 0, 0])(p),
            )
        )(params)
        assert image.dtype == jnp.float32
        assert jnp.all((image > 0) & (image < 1))
        assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(slope))
