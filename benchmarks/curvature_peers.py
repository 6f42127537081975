"""The spectrum of a trained network's Hessian, by us, by curvlinops and by PyHessian.

python -m benchmarks.curvature_peers --json FILE [--figure FILE] [--quick]

The Hessian of the mean cross-entropy of 200 images of CIFAR-10, with respect to all
269,722 parameters of a trained ResNet of 20 layers (PROTOJAX_DATA holds both). Two
things are compared: the five eigenvalues of largest magnitude, and the density of all.

- curvlinops: its operator given to SciPy's ARPACK; its own Lanczos for the density.
- PyHessian: its deflated power iteration, stopped at a relative change of 1e-5 (its
  default of 1e-3 is reached long before the eigenvalue is). Its `density` calls
  `torch.eig`, which PyTorch no longer has: it is given `torch.linalg.eigh` for the
  small tridiagonal matrix, and all else is its own.

All quadratures have as many nodes from as many random vectors, and are smoothed by the
same function. Results are kept in the file as they come; a second run goes on with what
is missing.
"""

import argparse
import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import figure
from scipy.sparse import linalg

from benchmarks import curvature as works
from benchmarks import timing, torch_curvature
from benchmarks.torch_peers import torch
from protojax.mechanisms import curvature
from protojax.scale import figures

NUM = 5
WIDTH = 0.01  # of the smoothing, relative to the largest eigenvalue
COLORS = {"curvlinops": "#c44e52", "PyHessian": "#8172b3"}


class Sizes(NamedTuple):
    """How much is done; `QUICK` only shows that it runs."""

    images: int = 200
    batch: int = 50  # of ours, which go through the images
    depth: int = 20
    steps: int = 48  # of our Lanczos, for the eigenvalues
    powers: int = 100  # of PyHessian's iteration at most, for each eigenvalue
    nodes: int = 32
    probes: int = 4


QUICK = Sizes(4, 2, 8, 12, 3, 6, 2)


class Problem(NamedTuple):
    """The network, and what is asked; for everyone the same."""

    model: Any
    variables: Any
    x: jax.Array
    y: jax.Array
    sizes: Sizes


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a smoke run")
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path, required=True)
    parser.add_argument("--figure", metavar="FILE", type=pathlib.Path)
    args = parser.parse_args()
    torch.set_num_threads(timing.cores())
    sizes = QUICK if args.quick else Sizes()
    problem, setting = load(sizes)
    record = _resumed(args.json, setting, sizes)
    spectra = record["spectra"]
    for name, contender in CONTENDERS.items():
        if name not in spectra:
            torch.manual_seed(0)
            spectra[name] = contender(problem)
            timing.write(args.json, json.dumps(record))
        print(name, spectra[name]["eigenvalues"], flush=True)
    record["comparison"] = compared(spectra)
    timing.write(args.json, json.dumps(record))
    print(json.dumps(record["comparison"], indent=1))
    if args.figure is not None:
        drawn(spectra).savefig(args.figure, dpi=200)


def load(sizes: Sizes) -> tuple[Problem, str]:
    """The real weights and images, or random ones of the same shapes; and which."""
    *found, setting = works.load(works.Sizes(batch=sizes.images, depth=sizes.depth))
    return Problem(*found, sizes), setting


def ours(problem: Problem) -> dict:
    """Lanczos with residuals, and quadrature, over products that stream the images."""
    model, variables, x, y, sizes = problem

    @functools.partial(jax.jit, static_argnums=0)
    def run(analyze: Callable, variables: Any, examples: Any) -> Any:
        def loss(params: Any, example: Any) -> jax.Array:
            logits = model.apply({**variables, "params": params}, example[0])
            return -jax.nn.log_softmax(logits)[example[1]]

        params = variables["params"]
        matvec = curvature.mean_hessian(loss, params, examples, batch_size=sizes.batch)
        return analyze(matvec, params)

    def pairs(matvec: Any, like: Any) -> Any:
        key = jax.random.key(0)
        return curvature.top_eigenpairs(
            matvec, like, key=key, num=NUM, steps=sizes.steps
        )

    def quadrature(matvec: Any, like: Any) -> Any:
        key = jax.random.key(1)
        return curvature.spectral_density(
            matvec, like, key=key, steps=sizes.nodes, probes=sizes.probes
        )

    values, _, residuals = run(pairs, variables, (x, y))
    nodes, weights, dimension = run(quadrature, variables, (x, y))
    return {
        "dimension": int(dimension),
        "eigenvalues": values.tolist(),
        "residuals": residuals.tolist(),
        "nodes": nodes.tolist(),
        "weights": weights.tolist(),
    }


def by_curvlinops(problem: Problem) -> dict:
    """ARPACK on its operator, and its own Lanczos."""
    operator = torch_curvature.Curvlinops(*_theirs(problem)).make()
    matrix = operator.to_scipy()
    start = np.random.default_rng(0).normal(size=matrix.shape[0]).astype("f")
    values = linalg.eigsh(matrix, NUM, v0=start, tol=1e-4, return_eigenvectors=False)
    sizes = problem.sizes
    runs = [
        torch_curvature.spectrum.fast_lanczos(operator, sizes.nodes)
        for _ in range(sizes.probes)
    ]
    return {
        "eigenvalues": _ordered(values),
        "nodes": [nodes.tolist() for nodes, _ in runs],
        "weights": [(vectors[0] ** 2).tolist() for _, vectors in runs],
    }


def by_pyhessian(problem: Problem) -> dict:
    """Its power iteration, and its Lanczos with the missing function put there."""
    operator = torch_curvature.PyHessian(*_theirs(problem)).make()
    sizes = problem.sizes
    values, _ = operator.eigenvalues(maxIter=sizes.powers, tol=1e-5, top_n=NUM)

    def eig(matrix: torch.Tensor, eigenvectors: bool) -> tuple:
        assert eigenvectors
        values, vectors = torch.linalg.eigh(matrix)
        return torch.stack([values, torch.zeros_like(values)], 1), vectors

    with mock.patch.object(torch, "eig", eig):
        nodes, weights = operator.density(iter=sizes.nodes, n_v=sizes.probes)
    return {
        "eigenvalues": _ordered(values),
        "nodes": np.float64(nodes).tolist(),
        "weights": np.float64(weights).tolist(),
    }


CONTENDERS: dict[str, Callable[[Problem], dict]] = {
    "protojax": ours,
    "curvlinops": by_curvlinops,
    "PyHessian": by_pyhessian,
}


def _theirs(problem: Problem) -> tuple:
    model, variables, x, y, _ = problem
    net = torch_curvature.ResNet(
        jax.tree.map(np.asarray, variables), model.mean, model.std
    )
    images = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy())
    return net, images, torch.tensor(np.asarray(y)).long()


def _ordered(values: Any) -> list[float]:
    return sorted(map(float, values), key=abs, reverse=True)


def compared(spectra: Mapping[str, dict]) -> dict:
    """How far each peer is from us.

    Args:
      spectra: of each contender, ours among them.

    Returns:
      For each peer, the relative differences of its eigenvalues, and the share of a
      grid over the spectrum on which its density lies in our 95 % band.
    """
    top = np.array(spectra["protojax"]["eigenvalues"])
    grid, bands = densities(spectra)
    own = bands["protojax"]
    return {
        name: {
            "eigenvalues": (np.array(found["eigenvalues"]) / top - 1).tolist(),
            "in_our_band": float(
                np.mean(
                    (own.low <= bands[name].value) & (bands[name].value <= own.high)
                )
            ),
        }
        for name, found in spectra.items()
        if name != "protojax"
    }


def densities(spectra: Mapping[str, dict]) -> tuple[np.ndarray, dict]:
    """Everyone's density with its interval, on one grid, by the same smoothing."""
    top = abs(spectra["protojax"]["eigenvalues"][0])
    least = min(np.min(found["nodes"]) for found in spectra.values())
    grid = np.linspace(least - 4 * WIDTH * top, (1 + 4 * WIDTH) * top, 600)
    dimension = jnp.array(spectra["protojax"]["dimension"])
    bands = {}
    for name, found in spectra.items():
        quadrature = curvature.Spectrum(
            jnp.array(found["nodes"]), jnp.array(found["weights"]), dimension
        )
        bands[name] = curvature.density(
            quadrature, jnp.float32(grid), width=WIDTH * top
        )
    return grid, jax.tree.map(np.asarray, bands)


def drawn(spectra: Mapping[str, dict]) -> figure.Figure:
    """Our density with its band, those of the peers, and the eigenvalues."""
    grid, bands = densities(spectra)
    own = bands["protojax"]
    picture = figures.spectrum(
        grid,
        own.value,
        low=own.low,
        high=own.high,
        outliers=spectra["protojax"]["eigenvalues"],
    )
    axis = picture.axes[0]
    for place, (name, color) in enumerate(COLORS.items(), 2):
        axis.plot(grid, bands[name].value, color=color, lw=1.1, ls=(0, (4, 2)))
        axis.annotate(
            *(name, (1, 1)),
            xycoords="axes fraction",
            xytext=(-4, -6 - 14 * place),
            textcoords="offset points",
            color=color,
            ha="right",
            va="center",
            fontsize=8.5,
        )
    return picture


def _resumed(file: pathlib.Path, setting: str, sizes: Sizes) -> dict:
    record = {
        "setting": setting,
        "sizes": sizes._asdict(),
        "command": timing.command(),
        "environment": timing.environment(),
        "spectra": {},
    }
    if not file.is_file():
        return record
    before = json.loads(file.read_text())
    if any(before[key] != record[key] for key in ("setting", "sizes")):
        raise ValueError(f"{file} holds another run: name another file")
    return before


if __name__ == "__main__":
    main()
