r"""ClaDec: what a layer of a classifier knows, shown as an image decoded from it.

Claim (Schneider and Vlachos 2023): an image decoded from a layer shows what the
classifier has kept of it, next to what a reference autoencoder can restore; asking the
decoder to please the classifier, too (alpha), trades a picture that is easy to read for
one that is true to the classifier.

    python -m experiments.cladec                 the drawn birds, two layers
    python -m experiments.cladec mnist           the reproduction's networks on digits
    python -m experiments.cladec --model my.module:network --data folder:my/images \
        --layers relu:1 relu:2

All alphas and seeds of a layer train at once. Decoded images are judged by the
classifier and by new ones, relevance maps made of them by deletion and insertion, and
both are attacked. What is the paper's and what is ours: docs/cladec.md.
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
    cladec_judged,
    cladec_report,
    cladec_setup,
    cladec_training,
    cli,
    studies,
    trainings,
)
from protojax import sweeps


@dataclasses.dataclass(frozen=True)
class Config:
    """What is decoded, by what, and how that is trained."""

    model: str = "parts_small"
    """A name from experiments/networks.py, package.module:function of your own, or one
    that is trained here: small, the reproduction's classifier, or authors, theirs, for
    32 pixels."""
    data: str | None = "parts"
    """Images: parts, folder:PATH, npz:PATH or tfds:NAME; the model's own if not given.
    In a path, PROTOJAX_DATA is the folder that the environment variable names."""
    image_size: int | None = None
    """Pixels; the model's usual ones if not given."""
    gray: bool = False
    """Keep one channel, of images that are gray."""
    enlarged: int | None = None
    """Rows and columns to which images are enlarged by repeating pixels, as the authors
    do; not at all if not given."""
    labels: Literal["given", "predicted"] = "given"
    """Which class the decoder is to please: the label, as in the authors' code, or what
    the classifier says (for fidelity, or images that are labeled with something else).
    """
    layers: tuple[str, ...] = ("stage2", "stage3")
    """The layers that are decoded, by name (see `activations.layers`)."""
    decoder: Literal["authors", "small"] = "authors"
    """The authors' decoder, or that of the reproduction."""
    alphas: tuple[float, ...] = (0.0, 0.001, 0.01, 0.1, 0.9)
    """Weights of classification against the mean squared error of pixels."""
    seeds: int = 3
    """Decoders for each alpha, references and random encoders."""
    train: int = 1500
    """Images to learn from."""
    test: int = 400
    """Images, never seen in training, that all numbers are of."""
    epochs: int = 10
    """Epochs of each decoder."""
    batch: int = 50
    """Images in a step."""
    rate: float = 3e-3
    """Learning rate of decoders."""
    decay: float = 0.0
    """L2 penalty on their weights; the authors' is 1e-5."""
    linear: bool = True
    """Solve for linear decoders and autoencoders, too."""
    evaluate: bool = True
    """Train new classifiers on what is decoded."""
    classifier_epochs: int = 10
    """Epochs of these, and of the models `small` and `authors`."""
    classifier_rate: float = 1e-3
    """Their learning rate; that of `authors` is theirs."""
    attacks: tuple[str, ...] = cladec_judged.ATTACKS
    """Attacks on what is decoded: pgd, eigenvector, random_best; or none."""
    radii: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    """L-infinity budgets, in gray levels of 255."""
    steps: int = 20
    """Steps of `pgd`, and draws of random signs."""
    maps: tuple[str, ...] = cladec_judged.MAPS
    """Maps that are compared by deletion and insertion; none for no comparison."""
    images: int = 24
    """Images that are attacked and mapped, of those that are classified correctly."""
    save_every: int = 2
    """Epochs between checkpoints."""
    chunk: int = 4
    """Images, or decoders, per part of the results."""
    seed: int = 0
    """Of all that is random."""


Members = dict[str, dict[str, dict[str, Any]]]
"""By layer and kind: `params`, `alpha`, `seed`, `diverged`, `[M, ...]`."""


def studied(
    config: Config, setup: cladec_setup.Setup, found: Members
) -> dict[str, studies.Study]:
    """What is done with decoders: all are measured, some attacked and mapped."""
    test = {name: jnp.asarray(setup.test[name]) for name in ("image", "label")}
    judges = {"network": setup.weights, **test}

    def explain_of(layer: str, kind: str) -> cladec_judged.Explain:
        return functools.partial(cladec_training.explain, config, setup, layer, kind)

    sweeping = {}
    for layer, kinds in found.items():
        for kind, members in kinds.items():
            count = len(members["seed"])
            nan = np.full(count, np.nan, np.float32)
            examples = {"evaluated": nan, **members}
            place = f"judged/{cladec_training.name(layer, kind)}"
            sweeping[place] = studies.Study(
                functools.partial(
                    cladec_judged.judged, explain_of(layer, kind), setup.fn
                ),
                [{"layer": layer, "kind": kind}],
                examples | {"id": np.arange(count)},
                judges,
            )
    some = chosen(config, setup)
    keep = some["id"][:4].tolist()
    first = {
        layer: {
            kind: first_seeds(members)
            for kind, members in kinds.items()
            if kind in ("cladec", "reference")
        }
        for layer, kinds in found.items()
    }
    if config.attacks:
        sweeping["attacked"] = studies.Study(
            functools.partial(
                cladec_judged.attacked,
                {layer: explain_of(layer, "cladec") for layer in found},
                setup.fn,
                config.steps,
            ),
            sweeps.grid(
                layer=config.layers,
                attack=config.attacks,
                alpha=sorted({config.alphas[0], config.alphas[-1]}),
                radius=[radius / 255 for radius in config.radii],
            ),
            some,
            {
                "network": setup.weights,
                "alphas": jnp.asarray(config.alphas),
                **{layer: kinds["cladec"] for layer, kinds in first.items()},
            },
            keep=keep,
        )
    if config.maps:
        both = cladec_training.pick(first, 0)
        sweeping[""] = studies.Study(
            functools.partial(
                cladec_judged.mapped,
                {
                    layer: {kind: explain_of(layer, kind) for kind in kinds}
                    for layer, kinds in both.items()
                },
                setup.fn,
            ),
            maps_of(config, setup),
            {name: values for name, values in some.items() if name != "other"},
            {"network": setup.weights, **both},
            keep=keep,
        )
    return sweeping


def first_seeds(members: dict[str, Any]) -> dict[str, Any]:
    """A decoder of each alpha, the first that did not diverge, if there is one."""
    alphas = np.cumsum(np.asarray(members["seed"]) == 0)  # seeds run fastest
    rows = trainings.first_sound(alphas, np.asarray(members["diverged"]))
    chosen = {name: members[name] for name in ("params", "diverged")}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[rows]), chosen)


def maps_of(config: Config, setup: cladec_setup.Setup) -> list[dict[str, str]]:
    """Maps of what is decoded for each layer, and others once."""
    spatial = [name for name in config.layers if len(setup.shapes[name]) == 3]
    others = [name for name in config.maps if name in cladec_judged.SALIENCY]
    if "grad_cam" in others and not spatial:
        raise ValueError(
            "`maps` has 'grad_cam', and none of `layers` is a feature map: name one, or"
            " leave it out"
        )
    decoded = [name for name in config.maps if name in cladec_judged.DECODED]
    pairs = [(layer, name) for layer in config.layers for name in decoded]
    pairs += [([*config.layers, *spatial][-1], name) for name in others]
    return [{"layer": layer, "map_by": name} for layer, name in pairs]


def chosen(config: Config, setup: cladec_setup.Setup) -> dict[str, np.ndarray]:
    """The first test images that are classified correctly, each beside another one."""
    right = np.flatnonzero(setup.test["right"])[: config.images]
    if len(right) < 2:
        raise ValueError(
            f"{len(right)} of {len(setup.test['right'])} test images are classified"
            " correctly: raise `test`, or look at the classifier"
        )
    picked = {name: setup.test[name][right] for name in ("id", "image", "label")}
    return picked | {"other": np.roll(picked["image"], 1, axis=0)}


def main(config: Config, folder: pathlib.Path) -> None:
    """Train, measure, attack, compare, and report."""
    check(config)
    place = folder / "trained"
    setup = cladec_setup.load(config, place)
    maps_of(config, setup)  # refused before anything is trained, as what is chosen
    chosen(config, setup)
    found: Members = {}
    for layer in config.layers:
        found[layer] = {}
        for kind in cladec_training.kinds(config, setup, layer):
            members = cladec_training.trained(config, setup, layer, kind, place)
            if config.evaluate:
                members["evaluated"] = cladec_training.evaluated(
                    config, setup, layer, kind, members, place
                )
            found[layer][kind] = members
    studies.run(studied(config, setup, found), config, folder)
    cladec_report.write(config, folder, setup, found)


def plan(config: Config) -> str:
    """What the run would cost, training apart."""
    check(config)
    setup = cladec_setup.load(config, None)
    trainable = cladec_training.KINDS[:3]
    found = {
        layer: {
            kind: cladec_training.untrained(config, setup, layer, kind)
            for kind in trainable
        }
        for layer in config.layers
    }
    steps = len(setup.train["label"]) // config.batch
    return (
        f"Training is not part of the times below: for each layer"
        f" {(len(config.alphas) + 2) * config.seeds} decoders, {config.epochs} epochs"
        f" of {steps} steps.\n\n" + studies.plan(studied(config, setup, found), config)
    )


def check(config: Config) -> None:
    """Refuse what would fail, or mean nothing, before anything is loaded."""
    checks.among(config, "decoder", tuple(cladec_training.DECODERS))
    for name, known in (
        ("attacks", cladec_judged.ATTACKS),
        ("maps", cladec_judged.MAPS),
    ):
        if getattr(config, name):
            checks.among(config, name, known)
    checks.above_zero(config, "seeds", "epochs", "batch", "rate", "radii", "steps")
    checks.above_zero(config, "train", "test", "images", "classifier_epochs")
    checks.above_zero(config, "enlarged", "image_size", "classifier_rate")
    checks.above_zero(config, "save_every", "chunk")
    checks.not_below_zero(config, "alphas", "decay", "seed")
    if not config.layers:
        raise ValueError("`layers` is empty: name one at least")
    if max(config.alphas) > 1:
        raise ValueError(f"`alphas` has {max(config.alphas):g}: choose from 0 to 1")


_DIGITS = Config(
    model=cladec_setup.SMALL,
    data="npz:PROTOJAX_DATA/mnist.npz",
    image_size=28,
    gray=True,
    layers=("conv", "dense"),
    decoder="small",
    # Of a mean over 784 pixels; of their sum they are 0, 0.01, 0.1, 0.5 and 0.99.
    alphas=(0.0, 1.288e-5, 1.417e-4, 1.274e-3, 0.1121),
    train=4000,
    test=1000,
    batch=32,
    rate=5e-3,
    images=48,
    chunk=8,
)
_IMAGENET = Config(
    model="squeezenet1_1",
    data="folder:PROTOJAX_DATA/pets3",
    labels="predicted",
    layers=("fire5", "fire9"),
    alphas=(0.0, 0.01),
    seeds=1,
    train=350,
    test=100,
    batch=16,
    evaluate=False,
    images=12,
)
CONFIGS = {
    "default": Config(),
    "mnist": _DIGITS,
    "fashion": dataclasses.replace(_DIGITS, data="npz:PROTOJAX_DATA/fashion_mnist.npz"),
    "cifar10": Config(
        model="cifar10_resnet20",
        data="npz:PROTOJAX_DATA/cifar10.npz",
        layers=("layer2.2", "layer3.2"),
        alphas=(0.0, 1e-3, 1e-2, 0.1, 0.9),
        decoder="small",
        train=2000,
        test=500,
    ),
    "authors": dataclasses.replace(
        _DIGITS,
        data="npz:PROTOJAX_DATA/fashion_mnist.npz",
        model=cladec_setup.AUTHORS,
        enlarged=32,
        layers=("conv2", "flat"),
        decoder="authors",
        alphas=(0.001,),
        rate=3e-4,
        decay=1e-5,
        seeds=1,
        batch=128,
    ),
    "squeezenet": _IMAGENET,
    "mobilenet": dataclasses.replace(
        _IMAGENET, model="mobilenet_v2", layers=("blocks.7", "head")
    ),
    "cub": dataclasses.replace(
        _IMAGENET,
        data="folder:PROTOJAX_DATA/CUB_200_2011/images",
        train=2000,
        test=500,
    ),
    "places365": dataclasses.replace(
        _IMAGENET,
        model="my.places:network",
        data="folder:PROTOJAX_DATA/places365",
        image_size=224,
        layers=("relu:9", "relu:12"),
        train=2000,
        test=500,
    ),
    "smoke": Config(
        layers=("stage2",),
        decoder="small",
        alphas=(0.0, 0.5),
        seeds=1,
        train=40,
        test=16,
        epochs=1,
        batch=20,
        evaluate=False,
        attacks=("pgd",),
        radii=(4.0,),
        steps=2,
        maps=("agreement", "gradient"),
        images=4,
        save_every=1,
    ),
}

if __name__ == "__main__":
    cli.run(CONFIGS, main, __doc__, plan=plan)
