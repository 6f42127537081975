"""Several networks of several trainings, each with a seed and a folder of its own.

A configuration names trainings (`trained`), how many networks of each (`repeats`) and
how networks are made (`network`); results lie in `TRAINING-SEED/KIND`.
"""

import pathlib
from typing import TYPE_CHECKING, Any

from protojax.scale import report

if TYPE_CHECKING:
    from experiments import jpeg, prototype_attacks

    Config = jpeg.Config | prototype_attacks.Config

Rows = list[dict[str, Any]]


def seeds(config: "Config") -> range:
    """They count up from that of the network."""
    first = config.network.seed
    return range(first, first + config.repeats)


def first(config: "Config", folder: pathlib.Path) -> pathlib.Path:
    """The folder of the first network."""
    return folder / f"{config.trained[0]}-{config.network.seed}"


def gathered(config: "Config", folder: pathlib.Path, kind: str) -> Rows:
    """The rows of one sweep of all networks, with `trained` and `seed`."""
    return [
        {**row, "trained": name, "seed": seed}
        for seed in seeds(config)
        for name in config.trained
        for row in report.read(folder / f"{name}-{seed}" / kind)
    ]


def told(config: "Config") -> str:
    """What is averaged, for a report."""
    if config.repeats == 1:
        return "one network of each training"
    return f"{config.repeats} networks of each training, each with a seed of its own"
