r"""Explanation networks: what a layer knows of a class, said in a few x-features.

Claim (Qi, Khorram and Li 2021): a handful of non-negative x-features of a layer, with a
linear read-out, stand for the classifier's score of a class; sparse reconstruction and
a pull-away term keep them meaningful and apart, better than other embeddings do.

    python -m experiments.xnn                     the drawn birds, parts known
    python -m experiments.xnn cifar10             ResNet-20, 10 classes, 5 seeds
    python -m experiments.xnn --model my.module:network --data folder:my/images \
        --layer relu:2

All networks of a method (classes, seeds) train at once in one program, beside
baselines; then their contributions are attacked as explanations. What is the paper's
and what is ours, and the numbers that came of it: docs/xnn.md.
"""

import dataclasses
import functools
import pathlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments import (
    checks,
    cli,
    studies,
    trainings,
    xnn_attacked,
    xnn_judged,
    xnn_methods,
    xnn_report,
    xnn_setup,
    xnn_study,
    xnn_training,
)
from protojax import sweeps
from protojax.contracts import PyTree


@dataclasses.dataclass(frozen=True)
class Config:
    """What is explained, by which methods, and how they are trained."""

    model: str = "parts"
    """A name from experiments/networks.py, or package.module:function of your own,
    which returns `(fn, weights)` with `fn(weights, image) -> logits`."""
    data: str | None = "parts"
    """Images: parts, folder:PATH, npz:PATH or tfds:NAME; the model's own if not given.
    In a path, PROTOJAX_DATA is the folder that the environment variable names."""
    image_size: int | None = None
    """Pixels; the model's usual ones if not given."""
    layer: str = "stage3"
    """The layer that is explained, by name (see `activations.layers`)."""
    grid: int | None = 4
    """Rows and columns to which a feature map is averaged; as it is if not given."""
    units: int | None = None
    """So many of the units, drawn at random; all if not given."""
    classes: tuple[int, ...] | None = None
    """Classes to explain; if not given all of them, or of many the `most`."""
    most: int = 5
    """Where classes are many: those that are predicted most often."""
    labels: Literal["given", "predicted"] = "given"
    """Which images are of a class: by their label, or by the classifier (for images
    that are labeled with something else)."""
    joint: bool = False
    """One network for all classes instead of one for each."""
    methods: tuple[str, ...] = (*xnn_methods.NETWORKS, *xnn_methods.FITTED)
    """Networks: srae, srae_images, srae_no_pull, network, stacked, convolutional.
    Others: lasso, pca, nmf, top_k."""
    features: int = 5
    """X-features of a class."""
    widths: tuple[int, ...] = (200, 50)
    """Hidden layers of the encoder."""
    codes: int = 50
    """Codes of PCA, NMF and TopK, among which Lasso chooses the x-features."""
    seeds: int = 3
    """Networks for each class, with other random numbers."""
    train: int = 2000
    """Images to learn from; a tenth of them decides when to stop."""
    test: int = 600
    """Images, never seen in training, that all numbers are of."""
    epochs: int = 60
    """Epochs of training, at most."""
    pre_epochs: int = 10
    """Epochs of greedy pre-training, of each layer."""
    patience: int = 10
    """Epochs without gain after which a network stops."""
    batch: int = 50
    """Images in a step."""
    rate: float = 1e-3
    """Learning rate of Adam."""
    rounds: int = 3
    """Trainings of a network, at most, until one passes the acceptance rule."""
    accept_all: bool = False
    """Average over all images in the acceptance rule, as the authors, and not over
    those of the class."""
    spread: float = 8.0
    """Standard deviation that scores are scaled to in training; the authors' weights
    are for scores from 0 to about 50."""
    map_at: str | None = None
    """The layer at which maps of x-features are read; the explained one if not given,
    the image for `image`."""
    maps: int = 8
    """Images of each class whose maps are measured, where parts are known."""
    attacks: tuple[str, ...] = xnn_attacked.ATTACKS
    """Attacks on contributions: top, singular_vector, eigenvector, random_best; none
    for no attacks."""
    radii: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    """L-infinity budgets, in gray levels of 255."""
    steps: int = 30
    """Steps of the attack `top`, and draws of random signs."""
    attacked: int = 24
    """Images that are attacked, out of those that are classified correctly."""
    compare_maps: bool = True
    """Look at some x-features in other ways, too: gradients, I-GOS."""
    study: bool = True
    """Write a kit with which people can name the x-features."""
    save_every: int = 10
    """Epochs between checkpoints."""
    chunk: int = 8
    """Images, or networks, per part of the results."""
    seed: int = 0
    """Of all that is random."""


def per_class(
    config: Config, setup: xnn_setup.Setup, found: xnn_training.Trained
) -> dict[str, Any]:
    """Networks, each as often as it has classes."""
    members = len(found.facts["c"])
    if config.joint and found.facts["c"].max(initial=0) == 0:
        rows = np.repeat(np.arange(members), len(setup.classes))
        places = np.tile(np.arange(len(setup.classes)), members)
        columns = places if _columns(found) > 1 else np.zeros_like(places)
    else:
        rows, places = np.arange(members), found.facts["c"]
        columns = np.zeros(members, int)
    facts = {name: value[rows] for name, value in found.facts.items() if name != "c"}
    return {
        "id": np.arange(len(rows)),
        "params": jax.tree.map(lambda leaf: leaf[rows], found.params),
        "c": np.asarray(setup.classes, np.int32)[places],
        "place": places.astype(np.int32),
        "column": columns.astype(np.int32),
        **facts,
    }


def _columns(found: xnn_training.Trained) -> int:
    return found.params["readout"]["kernel"].shape[-1]


def one_each(
    config: Config, setup: xnn_setup.Setup, found: xnn_training.Trained
) -> dict[str, PyTree]:
    """The first network of each class that did not diverge, if there is one."""
    every = per_class(config, setup, found)
    rows = trainings.first_sound(every["place"], every["diverged"])
    return {
        "members": jax.tree.map(lambda leaf: jnp.asarray(leaf[rows]), every["params"]),
        "columns": jnp.asarray(every["column"][rows]),
        "diverged": jnp.asarray(every["diverged"][rows]),
    }


def studied(
    config: Config, setup: xnn_setup.Setup, found: dict[str, xnn_training.Trained]
) -> dict[str, studies.Study]:
    """What is done with trained networks: all are measured, those of a method attacked.

    The contributions that are attacked are those of the first method's first networks.
    """
    sweeping = {}
    for method, members in found.items():
        examples = per_class(config, setup, members)
        sweeping[f"judged/{method}"] = studies.Study(
            functools.partial(
                xnn_judged.judged, setup.layer, reader_of(config, setup, method)
            ),
            [{"method": method}],
            examples,
            setup.judges,
            keep=examples["id"].tolist(),
        )
    first = config.methods[0]
    if config.attacks and first in found:
        reader = reader_of(config, setup, first)
        shown = one_each(config, setup, found[first])
        sweeping[""] = studies.Study(
            functools.partial(xnn_attacked.one, setup.layer, reader, config.steps),
            sweeps.grid(
                attack_by=config.attacks,
                radius=[radius / 255 for radius in config.radii],
                beta=[setup.beta],
            ),
            setup.attacked,
            {"network": setup.network.weights, **shown},
            keep=setup.attacked["id"][:3].tolist(),
        )
    return sweeping


def reader_of(
    config: Config, setup: xnn_setup.Setup, method: str
) -> xnn_methods.Reader:
    """How a method's parameters are used."""
    return xnn_methods.reader(method, xnn_training.model_of(config, setup, method))


def main(config: Config, folder: pathlib.Path) -> None:
    """Train, measure, attack, and report."""
    check(config)
    setup = xnn_setup.load(config)
    found = xnn_training.every(config, setup, folder / "trained")
    studies.run(studied(config, setup, found), config, folder)
    first = config.methods[0]
    reader = reader_of(config, setup, first)
    shown = one_each(config, setup, found[first])
    concepts = xnn_study.concepts(setup, reader, shown, config.features)
    if config.study:
        xnn_study.write(folder / "study", setup, concepts, seed=config.seed)
    kinds = []
    if config.compare_maps:
        kinds = xnn_study.kinds(setup, reader, shown, concepts)
    xnn_report.write(config, folder, setup, concepts, kinds)


def plan(config: Config) -> str:
    """What the run would cost, training apart."""
    check(config)
    setup = xnn_setup.load(config)
    found = {
        method: xnn_training.untrained(config, setup, method)
        for method in config.methods
        if method in xnn_methods.NETWORKS
    }
    steps = (len(setup.data.z) - len(setup.data.held)) // config.batch
    lines = [
        f"- {method}: {len(each.facts['c'])} networks of"
        f" {sum(leaf[0].size for leaf in jax.tree.leaves(each.params)):,} parameters"
        for method, each in found.items()
    ]
    return "\n".join(
        [
            f"Training, at most {config.rounds} times {config.epochs} epochs of {steps}"
            " steps, is not part of the times below.",
            *lines,
            "",
            studies.plan(studied(config, setup, found), config),
        ]
    )


def check(config: Config) -> None:
    """Refuse what would fail, or mean nothing, before anything is loaded."""
    checks.among(config, "methods", (*xnn_methods.NETWORKS, *xnn_methods.FITTED))
    if config.attacks:
        checks.among(config, "attacks", xnn_attacked.ATTACKS)
        checks.above_zero(config, "radii", "steps", "attacked")
    checks.above_zero(config, "seeds", "epochs", "rounds", "maps", "spread", "rate")
    checks.above_zero(config, "image_size", "grid", "units", "most", "widths", "codes")
    checks.above_zero(config, "patience", "batch", "save_every", "chunk")
    checks.not_below_zero(config, "pre_epochs", "seed", "classes")
    checks.at_least(config, 2, "features")
    checks.at_least(config, 20, "train")
    checks.at_least(config, 4, "test")


_CIFAR = Config(
    model="cifar10_resnet20",
    data="npz:PROTOJAX_DATA/cifar10.npz",
    layer="layer3.2",
    seeds=5,
    test=500,
)
_IMAGENET = Config(
    model="squeezenet1_1",
    data="folder:PROTOJAX_DATA/pets3",
    layer="fire9",
    grid=3,
    labels="predicted",
    methods=("srae", "srae_no_pull", "network", "stacked", "lasso", "pca"),
    seeds=2,
    train=350,
    test=100,
    attacked=12,
)
CONFIGS = {
    "default": Config(),
    "cifar10": _CIFAR,
    "cifar10-middle": dataclasses.replace(_CIFAR, layer="layer2.2"),
    "cifar10-joint": dataclasses.replace(_CIFAR, joint=True, features=12),
    "cifar10-paper-size": dataclasses.replace(
        _CIFAR,
        grid=None,
        classes=(3,),
        widths=(800, 100),
        methods=("srae", "srae_images", "network", "lasso"),
        seeds=2,
        rounds=1,
        attacks=(),
        study=False,
    ),
    "squeezenet": _IMAGENET,
    "mobilenet": dataclasses.replace(_IMAGENET, model="mobilenet_v2", layer="head"),
    "cub": dataclasses.replace(
        _IMAGENET,
        model="mobilenet_v2",
        layer="head",
        data="folder:PROTOJAX_DATA/CUB_200_2011/images",
        train=2000,
        test=500,
        widths=(800, 100),
    ),
    "places365": Config(
        model="my.places:network",
        data="folder:PROTOJAX_DATA/places365",
        image_size=224,
        layer="relu:13",
        grid=None,
        classes=(319, 175, 45, 52, 67, 121, 203),
        widths=(800, 100),
        seeds=1,
        train=2000,
        test=500,
    ),
    "smoke": Config(
        model="parts_small",
        layer="stage2",
        grid=2,
        classes=(0, 1),
        methods=("srae", "lasso"),
        features=3,
        widths=(16, 8),
        codes=12,
        seeds=2,
        train=80,
        test=40,
        epochs=2,
        pre_epochs=1,
        batch=20,
        rounds=1,
        maps=2,
        attacks=("top",),
        radii=(4.0,),
        steps=2,
        attacked=4,
        compare_maps=False,
        save_every=1,
        chunk=4,
    ),
}

if __name__ == "__main__":
    cli.run(CONFIGS, main, __doc__, plan=plan)
