"""Train a small network on the drawn birds, for the experiments that need one.

    python -m experiments.classifier

About a minute on two cores; more than nine of ten unseen birds are told apart. Training
is kept in checkpoints, and goes on where it was stopped, to the bit.
"""

import dataclasses
import functools
import itertools
import logging
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import checks, cli, trainings
from protojax import checkpoints, data, models, sweeps, training
from protojax.contracts import Array, Key, PyTree
from protojax.scale import figures, identity, pages, parts, progress, report, storage

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Config:
    """How the network is trained."""

    train: int = 2500
    """Birds to learn from."""
    test: int = 800
    """Birds, never seen in training, that it is tested on."""
    image_size: int = 64
    """Pixels."""
    widths: tuple[int, ...] = (16, 32, 64, 128)
    """Channels of each stage."""
    groups: int | None = 8
    """Of the normalization, which is over the whole image; None leaves it out, and
    each place of a feature map knows of its receptive field alone."""
    steps: int = 1000
    """Training steps."""
    batch: int = 32
    """Images in a step."""
    rate: float = 4e-3
    """Highest learning rate."""
    save_every: int = 200
    """Steps between checkpoints."""
    seed: int = 0
    """Of the parameters, the shuffling and the birds."""


def network(config: Config) -> nn.Module:
    """The network that is trained."""
    classes = len(parts.CLASSES)
    return models.ConvNet(classes=classes, widths=config.widths, groups=config.groups)


def fit(config: Config, folder: pathlib.Path) -> PyTree:
    """Train, or take up training, and return the network's variables."""
    model = network(config)
    optimizer = optax.adamw(optax.cosine_onecycle_schedule(config.steps, config.rate))
    size = config.image_size
    params = jax.jit(model.init)(
        jax.random.key(config.seed), jnp.zeros((size, size, 3))
    )
    state = training.init(params, optimizer, key=jax.random.key(config.seed))
    trainings.comes(lambda: config.steps in checkpoints.steps(folder))
    if checkpoints.steps(folder):
        state = checkpoints.restore(folder, state)
    start = int(state.step)
    if start == config.steps:
        return state.params
    _log.info("training a network on drawn birds; it is kept in %s", folder)
    batches = data.batches(
        f"parts:{config.train}",
        "train",
        size=config.batch,
        image_size=size,
        seed=config.seed,
        start=start,
    )
    loss = functools.partial(cross_entropy, model)
    few = itertools.islice(batches, config.steps - start)
    knobs = dataclasses.asdict(config)
    with (
        checkpoints.saving(folder) as save,
        progress.bar(config.steps, start, unit="step") as step,
    ):
        steps = training.train(loss, state, few, optimizer)
        for state, _ in steps:
            step(1)
            if state.step % config.save_every == 0 or state.step == config.steps:
                save(state, knobs)
    return state.params


def cross_entropy(
    model: nn.Module, params: PyTree, extra: PyTree, batch: PyTree, key: Key
) -> tuple[Array, tuple[PyTree, dict]]:
    """Mean cross-entropy of a batch."""
    del key
    logits = jax.vmap(model.apply, (None, 0))(params, batch["image"])
    each = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    return jnp.mean(each), (extra, {})


def fitted(
    model: nn.Module,
    batches: Iterator[dict[str, np.ndarray]],
    *,
    steps: int,
    rate: float,
    seed: int,
) -> PyTree:
    """Train a network on batches from memory, without checkpoints: its variables."""
    optimizer = optax.adamw(optax.cosine_onecycle_schedule(steps, rate))
    first = next(batches)
    key = jax.random.key(seed)
    params = jax.jit(model.init)(key, first["image"][0])
    state = training.init(params, optimizer, key=key)
    few = itertools.islice(itertools.chain([first], batches), steps)
    loss = functools.partial(cross_entropy, model)
    taken = training.train(loss, state, few, optimizer)
    for state, _ in taken:
        params = state.params
    return params


def trained(config: Config | None = None) -> tuple[nn.Module, PyTree]:
    """The trained network, from the user's cache or trained now."""
    config = config or Config()
    model = network(config)
    x = jnp.zeros((config.image_size, config.image_size, 3))
    # Another network of the same knobs, say of a later version, is another training.
    program = zlib.crc32(str(jax.make_jaxpr(model.init)(jax.random.key(0), x)).encode())
    name = identity.digest([dataclasses.asdict(config), program])
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(home, "protojax", f"birds-{name}")
    if jax.process_index():
        return model, fit(config, folder)
    with storage.alone(folder):  # another experiment may train it at this moment
        return model, fit(config, folder)


def judged(model: nn.Module, params: PyTree, example: dict, key: Key) -> dict:
    """What the network says of one bird."""
    del key
    probabilities = jax.nn.softmax(model.apply(params, example["image"]))
    guess = jnp.argmax(probabilities)
    return {
        "label": example["label"],
        "guess": guess,
        "correct": guess == example["label"],
        "confidence": probabilities[guess],
    }


def check(config: Config) -> None:
    """Refuse what would fail, or mean nothing, before anything is trained."""
    checks.above_zero(config, "train", "widths", "groups", "steps", "batch", "rate")
    checks.above_zero(config, "save_every")
    checks.not_below_zero(config, "seed")
    checks.at_least(config, 8, "image_size")
    checks.at_least(config, 2 * len(parts.CLASSES), "test")  # two of each are shown


def main(config: Config, folder: pathlib.Path) -> None:
    """Train, test, and report."""
    check(config)
    model = network(config)
    params = fit(config, folder / "checkpoints")
    birds = data.load(f"parts:{config.test}", "test", image_size=config.image_size)
    sweeps.run(
        functools.partial(judged, model),
        params,
        [{}],
        birds,
        folder,
        key=jax.random.key(config.seed),
        chunk=100,
    )
    rows = report.read(folder)
    values = ["correct", "confidence"]
    overall = [
        {"label": "all", "value": value, **report.estimate(rows, value)._asdict()}
        for value in values
    ]
    pages.write(
        folder,
        title="A network that tells drawn birds apart",
        sections=[_accuracy(rows, overall[0]), _seen(birds)],
        numbers=[*overall, *report.summary(rows, by=["label"], values=values)],
        provenance=report.provenance(folder),
    )


def _accuracy(rows: Sequence[report.Row], overall: Mapping[str, Any]) -> pages.Section:
    mean, low, high = (
        report.number(overall[name], ".1%") for name in ("mean", "low", "high")
    )
    by_class = report.table(
        [{**row, "share": "correct"} for row in rows],
        rows_by="label",
        columns_by="share",
        value="correct",
    )
    text = (
        f"**{mean}** of {overall['n']} unseen birds are told apart (95 % interval {low}"
        f" to {high}); chance is {1 / len(parts.CLASSES):.1%}."
    )
    caption = "Share of each class that is recognized."
    return pages.Section("Accuracy", [text, pages.Table(by_class, caption)])


def _seen(birds: dict[str, np.ndarray]) -> pages.Section:
    """Two birds of each class: they come class after class."""
    classes = len(parts.CLASSES)
    pictures = figures.panels(
        [birds["image"][:classes], birds["image"][classes : 2 * classes]],
        titles=[f"class {label}" for label in birds["label"][:classes]],
    )
    text = (
        "Two birds of each class. Pose, light and background say nothing about the"
        " class; the parts do."
    )
    alt = "Drawn birds of eight kinds on varied backgrounds."
    return pages.Section("The birds", [pages.Picture(pictures, text, alt)])


CONFIGS = {
    "default": Config(),
    "small": Config(
        train=1024, test=200, image_size=32, widths=(16, 32, 64), steps=400, rate=1e-2
    ),
    "local": Config(groups=None),
    "smoke": Config(train=64, test=32, image_size=32, widths=(8, 16), steps=4, batch=8),
}

if __name__ == "__main__":
    cli.run(CONFIGS, main, __doc__)
