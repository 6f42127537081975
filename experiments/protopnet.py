"""This looks like that: prototypes that are patches of training images.

Claim (Chen et al. 2019): a network that tells classes by how near an image's patches
come to a few prototypes, each of which is a patch of a training image, is about as
accurate as one that does not have to; and it can say of every prediction what looked
like what.

    python -m experiments.protopnet                 the drawn birds
    python -m experiments.protopnet local           birds that any part tells apart
    python -m experiments.protopnet pets            cats and dogs, on MobileNetV2
    python -m experiments.protopnet cub-resnet34    as published, for a GPU
    python -m experiments.protopnet pets --train folder:mine --test folder:mine
    python -m experiments.protopnet --also runs/one runs/two     an ensemble

Whether the claim holds is measured too: what parts prototypes are found on, whether
they stay there, what an attack elsewhere does to them. The protocol, and what of it is
published and what ours: docs/protopnet.md.
"""

import dataclasses
import pathlib
from typing import Literal

from experiments import (
    cli,
    protopnet_analysis,
    protopnet_report,
    protopnet_setup,
    protopnet_stages,
    protopnet_studies,
    protopnet_training,
    studies,
)


@dataclasses.dataclass(frozen=True)
class Config:
    """What prototypes are put on, and how they are trained."""

    backbone: str = "parts"
    """A name from experiments/backbones.py, or package.module:function of your own."""
    layer: str | None = None
    """Whose feature map the prototypes look at; the last one if not given."""
    weights: str | None = None
    """File of torchvision's weights, hf:OWNER/REPOSITORY/FILE, or random."""
    train: str = "parts:2000"
    """Training images: parts, folder:PATH, npz:PATH, tfds:NAME or tfds:NAME#BOX."""
    train_split: str = "train"
    """Which part of them; all[::2] and all[1::2] are the halves of a folder that has no
    splits."""
    test: str = "parts:400"
    """Test images."""
    test_split: str = "test"
    """Which part of them."""
    image_size: int | None = None
    """Pixels; the backbone's usual ones if not given."""
    resize: int | None = None
    """Short side before the center is cut out; the image size if not given."""
    per_class: int = 5
    """Prototypes of each class."""
    depth: int = 64
    """Channels of the prototypes."""
    similarity: Literal["log", "linear", "cosine"] = "log"
    """Of patches and prototypes: log as published; linear is minus the distance, and
    has no last stage; cosine, with its distances."""
    batch_norm: Literal["frozen", "live"] = "frozen"
    """Of the backbone: frozen applies its statistics and keeps them; live, as in the
    authors' code, takes those of each batch in every stage, and pushed prototypes drift
    off their patches."""
    augmentation: int = 0
    """Passes over the images in an epoch, each image changed anew; 0 is one pass over
    the images as they are."""
    elastic: bool = False
    """Whether images are bent too."""
    epochs: int = 16
    """Of warm and joint training together."""
    warm_epochs: int = 5
    """Of add-on layers and prototypes alone. If all are, and images are not changed,
    the features of the backbone are computed once."""
    pushes: tuple[int, ...] = (11, 16)
    """After which epochs prototypes are put onto patches."""
    last_epochs: int = 5
    """Of the last layer alone, after each push."""
    needed: int = 3
    """Of how many of the 6 nearest training images the class must be a prototype's for
    it to be kept at the end; 0 keeps all."""
    batch: int = 80
    """Images in a training step."""
    push_batch: int = 75
    """Images that are looked at together in a push."""
    rate: float = 3e-3
    """Learning rate of add-on layers and prototypes."""
    backbone_rate: float = 1e-4
    """Of the backbone."""
    last_rate: float = 1e-3
    """Of the last layer; 1e-4 as published."""
    decay: float = 1e-3
    """Weight decay of backbone and add-on layers, added to the gradient."""
    rate_every: int = 5
    """Epochs of joint training after which their rates fall by ten."""
    rate_offset: int = 1
    """Epochs that they fall earlier the first time: 1 as PyTorch counts since 1.1."""
    cluster: float = 0.8
    """Weight of the distance to the nearest prototype of the class."""
    separation: float = 0.08
    """Weight of that to the nearest one of other classes, which is made larger."""
    l1: float = 1e-4
    """Weight of the last layer's votes for other classes."""
    attacked: int = 64
    """Test images on which prototypes are attacked from elsewhere."""
    also: tuple[pathlib.Path, ...] = ()
    """Folders of finished runs whose logits are added to this one's: an ensemble."""
    save_every: int = 500
    """Training steps between checkpoints."""
    seed: int = 0
    """Of all that is random."""


def main(config: Config, folder: pathlib.Path) -> None:
    """Train, look at what the prototypes are, and report."""
    setup = protopnet_setup.set_up(config)
    trained = protopnet_setup.fitted(config, setup, folder / "training")
    near = protopnet_analysis.near(config, setup, trained)
    studies.run(protopnet_studies.of(config, setup, trained, near), config, folder)
    protopnet_report.write(config, folder, setup, trained, near)


def plan(config: Config) -> str:
    """The stages of training, and what they and the sweeps would cost."""
    protopnet_setup.check(config)
    lines = ["| stage | epochs |", "|---|---|"]
    for kind, epochs in protopnet_stages.stages(config, 1):
        lines.append(f"| {kind} | {epochs or ''} |")
    stages = "\n".join(lines)
    if config.train.startswith("tfds:"):
        return (
            f"{stages}\n\n{config.augmentation or 1} passes over {config.train} are an "
            "epoch. It is not read for a plan, as it may have to be downloaded."
        )
    setup = protopnet_setup.set_up(config)
    untrained, seconds = protopnet_training.tried(setup.learner, config, setup.lessons)
    trained = setup.of_images(untrained)
    near = protopnet_analysis.near(config, setup, trained)
    sweeps = studies.plan(protopnet_studies.of(config, setup, trained, near), config)
    return f"{stages}\n\nTraining: about {seconds / 60:.1f} min.\n\n{sweeps}"


PUBLISHED = Config(
    train_split="train",
    test_split="test",
    per_class=10,
    depth=128,
    batch_norm="live",
    augmentation=30,
    epochs=21,
    pushes=(11, 21),
    last_epochs=20,
    last_rate=1e-4,
    save_every=2000,
)
"""What the published configurations have in common; sets and backbones are named."""

CUB = dataclasses.replace(
    PUBLISHED, train="tfds:caltech_birds2011#bbox", test="tfds:caltech_birds2011#bbox"
)
CARS = dataclasses.replace(
    PUBLISHED, train="tfds:cars196#bbox", test="tfds:cars196#bbox"
)
PETS = Config(
    backbone="mobilenet_v2",
    layer="blocks.16",
    train="folder:PROTOJAX_DATA/pets3",
    train_split="all[::2]",
    test="folder:PROTOJAX_DATA/pets3",
    test_split="all[1::2]",
    per_class=6,
    depth=128,
    epochs=40,
    warm_epochs=40,
    pushes=(40,),
    last_epochs=40,
    needed=0,
    attacked=16,
)

LOCAL = Config(
    backbone="parts_local",
    layer="stage3",
    train="parts:1200#apart",
    test="parts:300#apart",
    per_class=10,
    epochs=12,
    warm_epochs=3,
    pushes=(12,),
    last_epochs=2,
    needed=0,
    batch=40,
    backbone_rate=1e-3,
    rate_every=12,
    cluster=0.1,
)
"""Places that know of nothing but what they see, and birds that any part tells apart;
with the published weight of the cluster term, prototypes remain in the background."""

CONFIGS = {
    "default": Config(),
    "local": LOCAL,
    "pets": PETS,
    "birds": dataclasses.replace(
        PETS,
        train="folder:PROTOJAX_DATA/cub200_2010_subset",
        train_split="train",
        test="folder:PROTOJAX_DATA/cub200_2010_subset",
        test_split="test",
        batch=40,
    ),
    "cub-vgg19": dataclasses.replace(CUB, backbone="vgg19"),
    "cub-resnet34": dataclasses.replace(CUB, backbone="resnet34", depth=256),
    "cub-densenet121": dataclasses.replace(CUB, backbone="densenet121"),
    "cars-vgg19": dataclasses.replace(CARS, backbone="vgg19"),
    "cars-resnet34": dataclasses.replace(CARS, backbone="resnet34", depth=256),
    "cars-densenet121": dataclasses.replace(CARS, backbone="densenet121"),
    "smoke": Config(
        backbone="parts_small",
        train="parts:80",
        test="parts:16",
        per_class=2,
        depth=8,
        epochs=2,
        warm_epochs=1,
        pushes=(2,),
        last_epochs=1,
        needed=1,
        batch=40,
        push_batch=40,
        attacked=8,
    ),
}

if __name__ == "__main__":
    cli.run(CONFIGS, main, __doc__, plan=plan)
