"""Cases of visualizations: waves, phases, colors, losses, known optima, paths."""

import numpy as np

from protojax.conformance.cases import Case

SIGNATURES = {
    "amplitudes": "(size, decay) -> [H, W // 2 + 1]: sqrt(HW) / max(f, 1 / max(size)) "
    "to the power decay",
    "wave": "(real [H, W // 2 + 1], imaginary, width) -> [H, W]: a quarter of the "
    "inverse transform of the coefficients times their amplitudes, decay 1",
    "wave_coefficients": "(x [H, W]) -> [2, H, W // 2 + 1]: which make `wave` give x",
    "correlated_colors": "(z [N, 3]) -> [N, 3]: red, green, blue, as Lucid",
    "phase_image": "(phase [H, W // 2 + 1, C], template, width) -> [H, W, C]: of these "
    "phases and magnitudes",
    "standardized_image": "(phase, template, width) -> [H, W, C]: MaCo's before "
    "colors: phases, then the image, less their mean and over their deviation",
    "probability_variance": "(logits, ddof) -> []: of the softmax",
    "probability_variance_slope": "(logits) -> [K]: its derivative, ddof 0",
    "high_frequency": "(x [H, W, C]) -> []: means of absolute differences of "
    "neighbors, down and across added",
    "gram_diversity": "(features [B, places, C]) -> []: minus the cosines of Gram "
    "matrices, over ordered pairs and divided by B",
    "dot_cosine": "(h [C], v [C], power) -> []: h v times the cosine to that power, a "
    "cosine below 0.1 counting as 0.1",
    "highest_in_box": "(score, x0 [n]) -> [n]: where a climb from x0 in [0, 1] ends",
    "fooled_logits": "(logits, natural, shift, offset, gate) -> [K]: what a fooling "
    "circuit shows, on its natural branch or the other",
    "left_out_distances": "(layers [N, n]) -> [N]: mean absolute difference of each "
    "from the mean of the others",
    "beaten": "(l1 [L], rank [L], natural_l1 [N, L], natural_rank) -> [2]: shares of "
    "pairs in which a picture is closer, by each; pairs without a rank left out",
}

_ROUNDING = "float32 rounding"
_CLOSED = "closed form"
_OLAH, _MACO = "Olah et al. 2017 and Lucid", "Fel et al. 2023"
_PAPER, _GEIRHOS = "Tagade and Rumbelow 2023", "Geirhos et al. 2024"
_N = 16


def _case(name, asks, expected, source, atol=1e-5, **given):
    return Case(f"generation-{name}", asks, given, expected, atol, _ROUNDING, source)


def _wave(name, row, column, expected):
    real = np.zeros((_N, _N // 2 + 1))
    real[row, column] = 1.0
    given = {"real": real, "imaginary": 0 * real, "width": _N}
    expected = np.broadcast_to(expected, (_N, _N))
    return _case(name, "wave", expected, _CLOSED, **given)


def _odd():
    """Of width 7: the sum over all frequencies, written out."""
    draw = np.random.default_rng(0)
    height, width = 5, 7
    half = (height, width // 2 + 1)
    c = draw.normal(size=half) + 1j * draw.normal(size=half)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    lowest = np.maximum(np.hypot(rows, columns), 1 / width)
    c_scaled = c * np.sqrt(height * width) / lowest
    y, x = np.mgrid[:height, :width]
    expected = np.zeros((height, width))
    for i in range(height):
        for j in range(half[1]):
            turn = np.exp(2j * np.pi * (i * y / height + j * x / width))
            # every column but the first stands for its mirror image, too
            expected += (1 if j == 0 else 2) * (c_scaled[i, j] * turn).real
    given = {"real": c.real, "imaginary": c.imag, "width": width}
    expected /= 4 * height * width
    return _case("7.1.6", "wave", expected, "the sum over frequencies", **given)


def _coefficients():
    x = np.random.default_rng(1).normal(size=(6, 8))
    lowest = np.hypot(np.fft.fftfreq(6)[:, None], np.fft.rfftfreq(8)[None])
    spectrum = 4 * np.fft.rfft2(x) * np.maximum(lowest, 1 / 8) / np.sqrt(48)
    expected = np.stack([spectrum.real, spectrum.imag])
    return _case("7.1.7", "wave_coefficients", expected, "NumPy, rfft2", x=x)


def _shifted():
    x = np.random.default_rng(2).normal(size=(6, 8, 2))
    spectrum = np.fft.rfft2(x, axes=(0, 1))
    turns = np.arange(6)[:, None] * 2 / 6 + np.arange(5) * 3 / 8
    return _case(
        *("7.3.1", "phase_image", np.roll(x, (2, 3), (0, 1)), "the shift theorem"),
        phase=np.angle(spectrum) - 2 * np.pi * turns[..., None],
        template=np.abs(spectrum),
        width=8,
    )


def _standardized(name, scale, shift):
    """Phases of mean 0 and deviation 1, where they mirror themselves antisymmetric."""
    draw = np.random.default_rng(3)
    x = draw.normal(size=(8, 8, 3))
    spectrum = np.fft.rfft2(x, axes=(0, 1))
    template = np.abs(spectrum)
    template[0, 0] = 0.0  # which has a mean of zero then
    phase = np.angle(spectrum)
    phase = (phase - phase.mean()) / phase.std()
    upside = np.roll(phase[::-1], 1, axis=0)
    turned = phase.copy()
    turned[5:, [0, -1]] = -upside[5:, [0, -1]]
    real = template * np.cos(turned), template * np.sin(turned)
    full = real[0] + 1j * real[1]
    for row, column in ((0, 0), (0, -1), (4, 0), (4, -1)):
        full[row, column] = full[row, column].real
    image = np.fft.irfft2(full, s=(8, 8), axes=(0, 1))
    expected = (image - image.mean()) / image.std()
    why = "float32 rounding, and what is added to deviations, 1e-5"
    given = {"phase": scale * phase + shift, "template": template, "width": 8}
    return Case(
        *(f"generation-{name}", "standardized_image", given, expected, 2e-3),
        why,
        f"{_MACO}, in NumPy",
    )


def _slope():
    z = np.random.default_rng(4).normal(size=7)
    p = np.exp(z) / np.exp(z).sum()
    expected = 2 / 7 * p * (p - np.sum(p**2))
    return _case("1.3.5", "probability_variance_slope", expected, _CLOSED, logits=z)


def _one_hot(name, count, ddof, expected):
    z = np.where(np.arange(count), 0.0, 1e3)
    given = {"logits": z, "ddof": ddof}
    return _case(name, "probability_variance", expected, _CLOSED, 1e-7, **given)


def _linear(operations, x):
    """The sum of w x, highest in the corner 1[w > 0]."""
    return operations.total(operations.array(_SLOPES) * x, 1)


def _bump(operations, x):
    """Minus the squared distance from t, highest at t."""
    return -operations.total((x - operations.array(_TOP)) ** 2, 1)


def _distances():
    layers = np.random.default_rng(5).normal(size=(6, 20))
    away = np.abs(layers - layers.mean(0)).mean(1)
    given = {"layers": layers}
    return _case("2.4.1", "left_out_distances", 6 / 5 * away, _CLOSED, **given)


_SLOPES = [1.0, -2.0, 0.5, 3.0, -0.1]
_TOP = [0.2, 0.9, 0.5, 0.0, 1.0]
_V = np.array([0.6, -0.3, 1.1])
_ALONG = {"v": _V, "power": 2.0}
_SQUARE = float(np.sum(_V**2))
_BOARD = (np.indices((8, 8)).sum(0) % 2.0)[..., None]
_RAMP = np.broadcast_to(np.arange(8.0)[None, :, None], (8, 8, 1))
_SEEN = np.random.default_rng(6).uniform(size=(20, 6))
_CIRCUIT = {"logits": [1.0, -2, 3, 7], "shift": 1, "offset": 100.0, "gate": 250.0}
_PLACES = np.arange(_N)
_LOWEST = [[16, 16, 8], [16, 11.3137085, 7.15541753]]
_LOWEST += [[8, 7.15541753, 5.65685425], _LOWEST[1]]

CASES = [
    _case("7.1.1", "amplitudes", _LOWEST, f"{_OLAH}, by hand", size=(4, 4), decay=1.0),
    _wave("7.1.2", 0, 0, 1 / 4),
    _wave("7.1.3", 0, 3, np.cos(2 * np.pi * 3 * _PLACES / _N) / 6),
    _wave("7.1.4", 3, 0, np.cos(2 * np.pi * 3 * _PLACES / _N)[:, None] / 12),
    _wave("7.1.5", 0, _N // 2, (-1.0) ** _PLACES / 32),
    _odd(),
    _coefficients(),
    _case(
        *("7.2.1", "correlated_colors", [[0.562829, 0.584476, 0.584476]], _OLAH),
        z=[[1.0, 0, 0]],
    ),
    _shifted(),
    _standardized("7.3.2", 1.0, 0.0),
    _standardized("7.3.3", 7.0, 3.0),
    _case(
        "7.4.1", "highest_in_box", [1, 0, 1, 1, 0], _CLOSED, score=_linear, x0=[0.5] * 5
    ),
    _case("7.4.2", "highest_in_box", _TOP, _CLOSED, 1e-2, score=_bump, x0=[0.5] * 5),
    _one_hot("1.3.1", 10, 0, 0.09),
    _one_hot("1.3.2", 1000, 0, 9.99e-4),
    _one_hot("1.3.3", 10, 1, 0.1),
    _case(
        *("1.3.4", "probability_variance", 0, _CLOSED, 1e-9),
        logits=[3.0] * 7,
        ddof=0,
    ),
    _slope(),
    _case("7.6.1", "high_frequency", 2, "counted, as means", x=_BOARD),
    _case("7.6.2", "high_frequency", 1, "counted, as means", x=_RAMP),
    _case("7.6.3", "gram_diversity", -2, _CLOSED, features=np.stack([_SEEN] * 3)),
    _case(
        *("7.6.4", "gram_diversity", 0, _CLOSED),
        features=np.stack([_SEEN * (np.arange(6) < 3), _SEEN * (np.arange(6) >= 3)]),
    ),
    _case("7.6.5", "dot_cosine", _SQUARE, f"{_OLAH}, by hand", h=_V, **_ALONG),
    _case("7.6.6", "dot_cosine", -0.01 * _SQUARE, f"{_OLAH}, by hand", h=-_V, **_ALONG),
    _case(
        "7.8.1",
        "fooled_logits",
        [101, 98, 103, 107],
        _GEIRHOS,
        natural=True,
        **_CIRCUIT,
    ),
    _case(
        "7.8.2",
        "fooled_logits",
        [98, 103, 107, 101],
        _GEIRHOS,
        natural=False,
        **_CIRCUIT,
    ),
    _case(
        *("7.7.1", "rank_correlation", np.nan, "a constant has no ranks"),
        a=[2.0, 2, 2],
        b=[1.0, 2, 3],
    ),
    _distances(),
    _case(
        *("2.2.1", "beaten", [3 / 4, 2 / 3], f"{_PAPER}, counted"),
        l1=[2.0, 1.0],
        rank=[0.8, 0.3],
        natural_l1=[[3.0, 2.0], [1.0, 2.0]],
        natural_rank=[[0.5, np.nan], [0.7, 0.4]],
    ),
]
