"""Cases of prototype networks, and of JPEG, by which they are attacked."""

import numpy as np

from protojax.conformance.cases import Case

SIGNATURES = {
    "squared_distances": "(features [h, w, D], prototypes [P, D]) -> [h, w, P]",
    "similarity": "(distances) -> like them: log((d + 1) / (d + 1e-4))",
    "similarity_slope": "(distances) -> like them: its derivative",
    "cluster": "(distances [N, P], labels [N], owners [P]) -> []: the mean over images",
    "separation": "(distances, labels, owners) -> []",
    "mean_separation": "(distances, labels, owners) -> []",
    "off_class_l1": "(kernel [P, K], owners) -> []",
    "initial_logits": "(similarities [N, P], owners) -> [N, K]: votes of 1 and -1/2",
    "enlarged": "(a [h, w], size) -> [H, W]: bicubic, as OpenCV",
    "high_crop": "(a [H, W]) -> [4]: top, bottom, left, right of the highest 5 %",
    "crop_cells": "(crop, grid, size, margin) -> [h, w]: which places it covers",
    "jpeg_tables": "(quality) -> [2, 8, 8]: steps of luma and chroma",
    "jpeg_gray": "(levels, quality) -> like them: what constant gray comes back as",
    "cubic_round": "(x) -> [2, n]: values and slopes of round(x) + (x - round(x))^3",
    "resized_nearest": "(row, size) -> [size]: floor convention",
}

_ROUNDING = "float32 rounding"
_CODE = "the formula of ProtoPNet's model.py"
_OPENCV = "OpenCV"
_PILLOW = "Pillow"

_SIMILAR = {
    0.0: 9.210340,
    1e-4: 8.517293,
    1e-3: 6.813445,
    1e-2: 4.605170,
    0.1: 2.396896,
    0.5: 1.098412,
    1.0: 0.693047,
    2.0: 0.405415,
    10.0: 0.095300,
    128.0: 0.007781,
}
_DISTANCES = [[0.30, 0.10, 0.20, 0.05], [0.90, 0.40, 0.60, 0.70]]
_DISTANCES += [[0.25, 0.35, 0.15, 0.45]]
_OWNERS = [0, 0, 1, 1]
_LOSS = {"distances": _DISTANCES, "labels": [0, 1, 1], "owners": _OWNERS}
_RAMP = np.arange(49.0).reshape(7, 7)
_SIZE = (224, 224)


def _case(name, asks, expected, source, atol=1e-5, **given):
    return Case(name, asks, given, expected, atol, _ROUNDING, source)


def _patches():
    draw = np.random.default_rng(0)
    features, prototypes = draw.uniform(size=(3, 4, 128)), draw.uniform(size=(5, 128))
    features[1, 2] = prototypes[3]
    expected = np.sum((features[:, :, None] - prototypes) ** 2, axis=-1)
    given = {"features": np.float32(features), "prototypes": np.float32(prototypes)}
    return _case(
        "E1.2", "squared_distances", expected, "the norm, in NumPy", 1e-4, **given
    )


def _one_high(row, column):
    a = np.zeros((7, 7))
    a[row, column] = 1.0
    return a


def _weights(a, size):
    """OpenCV's bicubic enlargement: cubic convolution at -3/4, edges repeated."""
    rows, columns = (_cubic(n, m) for n, m in zip(a.shape, size, strict=True))
    return rows @ a @ columns.T


def _cubic(count, size):
    place = (np.arange(size) + 0.5) * count / size - 0.5
    kernel = np.zeros((size, count))
    for shift in range(-1, 3):
        t = np.abs(place - (np.floor(place) + shift))
        near = 1.25 * t**3 - 2.25 * t**2 + 1
        far = -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
        index = np.clip(np.floor(place) + shift, 0, count - 1).astype(int)
        np.add.at(kernel, (np.arange(size), index), np.where(t <= 1, near, far))
    return kernel


def _cropped(number, cell, crop):
    enlarged = _weights(_one_high(*cell), _SIZE)
    name = f"protopnet-8.crop.{number}"
    return _case(name, "high_crop", crop, _OPENCV, 0.0, a=np.float32(enlarged))


def _covered(number, crop, margin, places):
    expected = np.zeros((7, 7))
    expected[np.ix_(places, places)] = 1
    given = {"crop": crop, "grid": (7, 7), "size": _SIZE, "margin": margin}
    name, source = f"protopnet-8.cells.{number}", "the code of Hoffmann et al."
    return _case(name, "crop_cells", expected, source, 0.0, **given)


_GRAY = {0: 0, 60: 58, 128: 128, 200: 198, 201: 203, 203: 203, 255: 253}
_ROUNDED = np.array([-1.5, -0.25, 0.0, 0.3, 1.0, 2.5])
_OFF = _ROUNDED - np.array([-2, 0, 0, 0, 1, 3])
_BASE = """
    16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56
    14 17 22 29 51 87 80 62 18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92
    49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99
    17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99
    47 66 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99
    99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99
"""
_TABLES = np.array(_BASE.split(), float).reshape(2, 8, 8)
"""The example tables of the JPEG standard, luma and chroma."""


def _tables(quality):
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    expected = np.clip((_TABLES * percent + 50) // 100, 1, 255)
    name, source = (
        f"protopnet-8.tables.{quality}",
        f"the standard, scaled as {_PILLOW} does",
    )
    return _case(name, "jpeg_tables", expected, source, 0.0, quality=quality)


_LOGITS = [[1.446008, 2.902334], [1.065705, 0.868015], [1.355647, 1.726725]]
CASES = [
    _case(
        *("E1.1", "squared_distances", [[[0.3125]]], "by hand"),
        features=[[[0.25, 0.75]]],
        prototypes=[[0.5, 0.25]],
    ),
    _patches(),
    _case(
        *("E2.1", "similarity", list(_SIMILAR.values()), _CODE),
        distances=list(_SIMILAR),
    ),
    _case(
        *("E2.2", "similarity_slope", [-9.080919, -0.4999], "closed form"),
        distances=[0.1, 1.0],
    ),
    _case(*("E2.3", "similarity_slope", [-9999], "closed form", 1.0), distances=[0.0]),
    _case("protopnet-8.cluster", "cluster", 0.2833333, "by hand", **_LOSS),
    _case("protopnet-8.separation", "separation", 0.2333333, "by hand", **_LOSS),
    _case("protopnet-8.mean", "mean_separation", 0.3583333, "by hand", **_LOSS),
    _case(
        *("protopnet-8.l1", "off_class_l1", 2, "by hand"),
        kernel=[[1, -0.5], [1, -0.5], [-0.5, 1], [-0.5, 1]],
        owners=_OWNERS,
    ),
    _case(
        *("protopnet-8.logits.1", "initial_logits", _LOGITS, "by hand", 1e-4),
        similarities=np.log((np.array(_DISTANCES) + 1) / (np.array(_DISTANCES) + 1e-4)),
        owners=_OWNERS,
    ),
    _case(
        *("protopnet-8.logits.2", "initial_logits", np.full((1, 200), -985.0)),
        "by hand: ten of 2000 prototypes for each class, all alike",
        similarities=np.ones((1, 2000)),
        owners=np.repeat(np.arange(200), 10),
    ),
    _case(
        *("protopnet-8.enlarged.1", "enlarged", _weights(_RAMP, _SIZE)),
        *(f"{_OPENCV}'s kernel, in NumPy", 1e-4),
        a=_RAMP,
        size=_SIZE,
    ),
    _case(
        *("protopnet-8.enlarged.2", "enlarged", _weights(_one_high(3, 3), _SIZE)),
        f"{_OPENCV}'s kernel, in NumPy",
        a=_one_high(3, 3),
        size=_SIZE,
    ),
    _cropped(1, (3, 3), [85, 139, 85, 139]),
    _cropped(2, (1, 2), [21, 75, 53, 107]),
    _cropped(3, (0, 0), [0, 69, 0, 69]),
    _cropped(4, (6, 6), [155, 224, 155, 224]),
    _cropped(5, (0, 6), [0, 69, 155, 224]),
    _covered(1, [85, 139, 85, 139], 1, [2, 3, 4]),
    _covered(2, [85, 139, 85, 139], 0, [2, 3]),
    _covered(3, [0, 69, 0, 69], 1, [0, 1, 2]),
    _covered(4, [0, 69, 0, 69], 0, [0, 1]),
    _covered(5, [155, 224, 155, 224], 1, [4, 5, 6]),
    _tables(20),
    _tables(50),
    _tables(95),
    _case(
        *("protopnet-8.gray", "jpeg_gray", list(_GRAY.values()), _PILLOW, 0.01),
        levels=list(_GRAY),
        quality=20,
    ),
    _case(
        *("protopnet-8.cubic", "cubic_round"),
        *([_ROUNDED - _OFF + _OFF**3, 3 * _OFF**2], "closed form"),
        x=_ROUNDED,
    ),
    _case(
        *("decoders-F7", "resized_nearest", np.arange(32) * 28 // 32, "PyTorch", 0.0),
        row=np.arange(28.0),
        size=32,
    ),
]
