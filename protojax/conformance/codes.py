"""Cases of explanation networks, sparse codes and decoders."""

import numpy as np

from protojax.conformance.cases import Case

SIGNATURES = {
    "pull_away": "(features [N, F]) -> []: mean squared cosine of two columns",
    "pull_away_images": "(contributions [N, F]) -> []: of two rows",
    "sparse_reconstruction": "(z, decoded, q) -> []: the mean of units' logarithms",
    "reconstruction_slope": "(z, decoded, q) -> like decoded: its gradient",
    "squared_error": "(z, decoded) -> []",
    "scores": "(features, readout, bias) -> [N]",
    "mean_contributions": "(features, readout) -> [F]",
    "accepted": "(means) -> []: 1 if a second feature counts, at 0.3 of the first",
    "significant": "(contributions, share) -> [F]: 1 for the fewest that make it",
    "shared_variance": "(correlations) -> []: the mean of squares off the diagonal",
    "redundancy": "(correlations) -> []: minus the log-determinant",
    "spread": "(shares) -> []: entropy over that of equal shares",
    "top_k_codes": "(codes, k) -> like codes: the k largest above zero",
    "explained_variance": "(z, decoded) -> []: one mean for each unit",
    "loss_recovered": "(original, ablated, found) -> []",
    "hoyer": "(codes) -> []",
    "active": "(codes) -> []: the mean number that is not zero",
    "dead": "(codes) -> [K]: 1 for codes that are zero on all examples",
    "linear_error": "(covariance, encoder) -> []: of the best linear decoder",
    "principal_error": "(covariance, size) -> []: of the best linear autoencoder",
    "linear_decoder": "(covariance, encoder) -> [d, r]: the best one",
    "decoder_loss": "(x, decoded, logits, y, alpha) -> []",
    "rate_factors": "(epochs) -> [epochs]: of the rate, in the middle of each epoch",
    "transposed_convolution": "(x [h, w], kernel [4, 4]) -> [2h, 2w]: stride 2, "
    "padding 1, as PyTorch",
}

_ROUNDING = "float32 rounding"
_HAND = "by hand"
_F = np.array([[1.0, 2, 0], [0, 1, 1], [2, 0, 1], [1, 1, 1]])
_V = np.array([2.0, -1, 0.5])
_ANGLES = np.arange(5) * np.pi / 5
_ROWS = [
    (np.eye(3), 0.0, "orthogonal"),
    (np.ones((4, 3)), 1.0, "all alike"),
    (np.array([[1.0, 0], [-1, 0]]), 1.0, "opposite"),
    (np.array([[1.0, 0], [0.5, 0.75**0.5]]), 0.25, "at 60 degrees"),
    (np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1), 0.375, "the Welch bound"),
    (_F, 0.421111111, _HAND),
    (_F.T, 0.324074074, _HAND),
    (_F * _V, 0.464737485, _HAND),
    ((_F * _V).T, 0.324074074, f"{_HAND}: lengths do not count"),
    (np.tile(np.eye(5), (10, 1)), 0.183673469, "the Welch bound"),
]
_Z, _R = [[1.0, 0, 2], [3, 1, 0]], [[1.0, 1, 2], [2, 1, 0]]
_E, _READ = [[2.0, 0, 1], [1, 1, 0], [0, 2, 2]], [1.5, -1, 0.5]
_P = [[1, 0.5, 0.2], [0.5, 1, 0], [0.2, 0, 1]]
_UNITS = [[1.0, 2], [3, 2], [5, 8]], [[1.0, 3], [3, 3], [4, 6]]
_SPOKEN = [6.0, 3.0, 0.8, 0.2, -4.0]
_SIGMA = np.diag([4.0, 3.0, 2.0, 1.0])
_OVERCOMPLETE = "overcomplete tests/"


def _case(name, asks, expected, source=_HAND, atol=1e-6, **given):
    return Case(name, asks, given, expected, atol, _ROUNDING, source)


def _pulled():
    for number, (rows, value, source) in enumerate(_ROWS, 1):
        name = f"decoders-F1.{number}"
        yield _case(f"{name}.features", "pull_away", value, source, features=rows.T)
        yield _case(
            f"{name}.images", "pull_away_images", value, source, contributions=rows
        )


def _lost(number, encoder, error, best):
    name, size = f"decoders-F8.{number}", len(encoder)
    given = {"covariance": _SIGMA, "encoder": encoder}
    yield _case(f"{name}.decoder", "linear_error", error, atol=5e-6, **given)
    yield _case(
        f"{name}.bound",
        "principal_error",
        best,
        atol=5e-6,
        covariance=_SIGMA,
        size=size,
    )


def _weighed(number, alpha, value):
    """A mean squared error of 0.02 and a cross-entropy of 0.5."""
    given = {"x": np.zeros((3, 2, 1)), "decoded": np.full((3, 2, 1), 0.02**0.5)}
    given |= {"logits": [-np.log(np.exp(0.5) - 1), 0.0], "y": 0, "alpha": alpha}
    return _case(f"decoders-F6.{number}", "decoder_loss", value, **given)


CASES = [
    *_pulled(),
    _case(
        *("decoders-F2.1", "sparse_reconstruction", 2.621217088),
        z=_Z,
        decoded=_R,
        q=100.0,
    ),
    _case(
        *("decoders-F2.2", "sparse_reconstruction", 0.270310072),
        z=_Z,
        decoded=_R,
        q=1.0,
    ),
    _case(
        *("decoders-F2.3", "reconstruction_slope"),
        [[0, 0.653594771, 0], [-0.653594771, 0, 0]],
        z=_Z,
        decoded=_R,
        q=100.0,
    ),
    _case("decoders-F2.4", "squared_error", 1 / 3, z=_Z, decoded=_R),
    _case(
        *("decoders-F3.1", "scores", [3.75, 0.75, -0.75]),
        features=_E,
        readout=_READ,
        bias=0.25,
    ),
    _case(
        *("decoders-F3.2", "mean_contributions", [1.5, -1, 0.5]),
        features=_E,
        readout=_READ,
    ),
    _case("decoders-F3.3", "accepted", 1, means=[1.5, -1, 0.5]),
    _case("decoders-F3.4", "accepted", 0, means=[1.0, 0.29]),
    _case("decoders-F3.5", "accepted", 1, means=[1.0, 0.3]),
    _case("decoders-F3.6", "accepted", 0, means=[-1.0, -2.0]),
    _case(
        *("decoders-F3.7", "significant", [1, 1, 0, 0, 0]),
        contributions=_SPOKEN,
        share=0.9,
    ),
    _case(
        *("decoders-F3.8", "significant", [1, 1, 1, 0, 0]),
        contributions=_SPOKEN,
        share=0.91,
    ),
    _case(
        *("decoders-F3.9", "significant", [0, 0]),
        contributions=[-1.0, -2.0],
        share=0.9,
    ),
    _case("decoders-F5.1", "shared_variance", 0.58 / 6, correlations=_P),
    _case("decoders-F5.2", "redundancy", 0.342490309, correlations=_P, atol=5e-6),
    _case("decoders-F5.3", "shared_variance", 0, correlations=np.eye(3)),
    _case("decoders-F5.4", "spread", 0.729846699, shares=[0.7, 0.2, 0.1]),
    _case("decoders-F5.5", "spread", 0, shares=[0.0, 1.0, 0.0]),
    _case("decoders-F5.6", "spread", 1, shares=[0.25] * 4),
    _weighed(1, 0.0, 0.02),
    _weighed(2, 0.001, 0.02048),
    _weighed(3, 0.5, 0.26),
    _weighed(4, 0.99, 0.4952),
    _weighed(5, 1.0, 0.5),
    _case(
        *("decoders-F6.6", "rate_factors", [1.0] * 29 + [0.1] * 29 + [0.01] * 6),
        "the authors' code",
        epochs=64,
    ),
    _case(
        *("decoders-F6.7", "transposed_convolution"),
        [[6, 17, 20, 14], [16, 42, 52, 34], [32, 82, 92, 58], [30, 69, 76, 44]],
        *("PyTorch", 0.01),
        x=[[1.0, 2], [3, 4]],
        kernel=np.arange(1.0, 17.0).reshape(4, 4),
    ),
    *_lost(1, np.eye(4)[:2], 3, 3),
    *_lost(2, np.eye(4)[2:], 7, 3),
    *_lost(3, np.full((1, 4), 0.5), 7, 6),
    *_lost(4, np.eye(4)[3:], 9, 6),
    _case(
        *("decoders-F8.5", "linear_decoder", [[0.8], [0.6], [0.4], [0.2]]),
        covariance=_SIGMA,
        encoder=np.full((1, 4), 0.5),
    ),
    _case(
        "decoders-F9.1", "top_k_codes", [0, 0, 2, 1], codes=[0.5, -0.2, 2.0, 1.0], k=2
    ),
    _case("decoders-F9.2", "top_k_codes", [0, 0, 3], codes=[-1.0, -2.0, 3.0], k=2),
    _case(
        "decoders-F9.3", "explained_variance", 0.78125, z=_UNITS[0], decoded=_UNITS[1]
    ),
    _case(
        *("decoders-F9.4", "loss_recovered", 14 / 15),
        original=2.0,
        ablated=8.0,
        found=2.4,
    ),
    _case("decoders-F9.5", "hoyer", 0.6, codes=[3.0, 4.0, 0.0, 0.0]),
    _case(
        *("F1.1", "active", 1.0, f"{_OVERCOMPLETE}misc/test_metrics.py"),
        codes=[[0.0, 1], [1, 0]],
    ),
    _case(
        *("F1.2", "active", 0.5, f"{_OVERCOMPLETE}misc/test_metrics.py"),
        codes=[[0.0, 1], [0, 0]],
    ),
    _case(
        *("F1.3", "dead", [1, 0], f"{_OVERCOMPLETE}misc/test_metrics.py"),
        codes=[[0.0, 1], [0, 0]],
    ),
    _case(
        "F1.4", "hoyer", 1, f"{_OVERCOMPLETE}misc/test_metrics.py", codes=[1.0, 0, 0]
    ),
    _case(
        "F1.5", "hoyer", 0, f"{_OVERCOMPLETE}misc/test_metrics.py", codes=[1.0, 1, 1]
    ),
    _case(
        *("F1.6", "hoyer", np.nan, f"{_OVERCOMPLETE}misc/test_metrics.py"),
        codes=[0.0, 0, 0],
    ),
    _case(*("F3.1", "pull_away", 0, "closed form"), features=np.eye(4)[:, :2]),
    _case(*("F3.2", "pull_away", 1, "closed form"), features=np.ones((4, 2))),
]
