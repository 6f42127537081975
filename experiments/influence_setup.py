"""What `experiments.influence` starts from: a trained last layer, and test images."""

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import checks, influence_head, networks
from protojax import influence
from protojax.contracts import Array, Fn, PyTree

if TYPE_CHECKING:
    from experiments.influence import Config

ATTACKS = ("gradient_sign", "feature_steps", "iterated", "random", "random_best")
"""What `influence.attack_by_name` knows."""

_log = logging.getLogger(__name__)


class Setup(NamedTuple):
    """What a configuration comes to.

    Attributes:
      network: whose features are used.
      layer: which of its layers they are.
      weights: of the network and the last layer, and what influences need.
      examples: the test images.
      train: the training images.
      facts: for the report: accuracies, sizes, how well the layer is trained.
    """

    network: networks.Network
    layer: str
    weights: dict[str, PyTree]
    examples: dict[str, np.ndarray]
    train: np.ndarray
    facts: dict[str, Any]


def set_up(config: "Config") -> Setup:
    """Load network and images, train the last layer, invert its Hessian."""
    check(config)
    network = networks.load(config.model, image_size=config.image_size)
    found = influence_head.pair_of_classes(
        network, config.data, config.split, config.classes, config.seed
    )
    if len(found["label"]) <= config.train:
        raise ValueError(
            f"`train` is {config.train}, and there are {len(found['label'])} images of "
            "the two classes: leave some to test"
        )
    layer = config.layer or influence_head.usual_layer(network, found["image"][0])
    seen = influence_head.all_features(network, layer, found["image"])
    if not np.all(np.isfinite(seen)):
        raise ValueError(
            f"`model` {config.model!r} has features that are not finite (`layer` "
            f"{layer!r}): are its weights those that were trained?"
        )
    scale = np.mean(np.linalg.norm(seen[: config.train], axis=1))
    seen = seen / scale
    train = {"features": jnp.asarray(seen[: config.train])}
    train["label"] = jnp.asarray(found["label"][: config.train])
    weights, facts = trained(config, train)
    weights |= {"network": network.weights, "scale": jnp.float32(scale)}
    examples, accuracy = tested(config, weights, found, seen)
    facts |= {"accuracy": accuracy, "features": seen.shape[1]}
    first, label = jnp.asarray(examples["features"][0]), int(examples["label"][0])
    influences(weights, first, label, config.l2 + config.damping)  # raised if singular
    return Setup(
        network, layer, weights, examples, found["image"][: config.train], facts
    )


def trained(
    config: "Config", train: dict[str, Array]
) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """The last layer, its Hessian's eigenpairs, and layers without some images."""
    width = train["features"].shape[1]
    start = {"kernel": jnp.zeros((width, 2)), "bias": jnp.zeros(2)}
    fitted = jax.jit(influence_head.fit)(train, config.l2, start=start)
    if not fitted.slope < 1e-5:
        raise ValueError(
            f"the gradient of the last layer is still {fitted.slope:.3g}: a larger `l2`"
            f" ({config.l2:g}) is easier to train with"
        )
    count = min(config.leave_out, config.train)
    drawn = np.random.default_rng(config.seed).permutation(config.train)[:count]
    anew = jax.jit(influence_head.without)(
        train, config.l2, fitted.head, jnp.asarray(np.sort(drawn))
    )
    pairs = jax.jit(
        lambda head, features: influence.all_eigenpairs(
            influence.softmax_hessian(head, features), head
        )
    )(fitted.head, train["features"])
    weights = {
        "head": fitted.head,
        "train": train,
        "pairs": pairs,
        "left_out": jnp.asarray(np.sort(drawn)),
        "without": anew.head,
    }
    right = (
        jnp.argmax(influence.softmax_logits(fitted.head, train["features"]), axis=1)
        == train["label"]
    )
    facts = {
        "slope": float(fitted.slope),
        "slope_without": float(jnp.max(anew.slope)),
        "train_accuracy": float(jnp.mean(right)),
        "curvature": float(pairs.values[0]),
    }
    return weights, facts


def tested(
    config: "Config", weights: PyTree, found: dict[str, np.ndarray], seen: np.ndarray
) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """Correctly classified test images, each beside another one of its class."""
    images, labels = found["image"][config.train :], found["label"][config.train :]
    phi, ids = seen[config.train :], found["id"][config.train :]
    guesses = np.asarray(
        jnp.argmax(influence.softmax_logits(weights["head"], jnp.asarray(phi)), axis=1)
    )
    right = np.flatnonzero(guesses == labels)
    _log.info("%d of %d test images are classified correctly", len(right), len(labels))
    if not len(right):
        raise ValueError(
            f"none of {len(labels)} test images of the classes {config.classes} is "
            "classified correctly: take another `layer`, or a smaller `l2`"
        )
    chosen = right[: config.images]
    others = []
    for place in chosen:
        same = right[(labels[right] == labels[place]) & (right != place)]
        if not len(same):
            raise ValueError(
                f"only one test image of class {config.classes[labels[place]]} is "
                "classified correctly: leave more to test (`train`, `data`)"
            )
        others.append(same[np.searchsorted(same, place) % len(same)])
    examples = {
        "image": images[chosen],
        "label": labels[chosen],
        "id": ids[chosen],
        "features": phi[chosen],
        "other": phi[np.asarray(others)],
    }
    return examples, (len(right), len(labels))


def check(config: "Config") -> None:
    """Refuse what would fail, or mean nothing, before anything is loaded."""
    first, second = config.classes
    if first == second:
        raise ValueError(f"`classes` is {config.classes}: name two different ones")
    checks.among(config, "attacks", ATTACKS)
    checks.not_below_zero(config, "radii")
    checks.above_zero(config, "images", "k", "top", "steps", "chunk")
    checks.above_zero(config, "dampings", "pairs", "image_size")
    checks.not_below_zero(config, "seed")
    checks.at_least(config, 4, "train")
    checks.at_least(config, 3, "leave_out")
    for name in ("k", "top"):
        if getattr(config, name) > config.train:
            raise ValueError(
                f"`{name}` is {getattr(config, name)}: choose 1 to `train` "
                f"({config.train})"
            )
    if config.l2 <= 0 or config.damping < 0:
        raise ValueError(
            f"`l2` is {config.l2:g} and `damping` {config.damping:g}: the first must be"
            " above zero, as the Hessian of two classes is singular, and the second not"
            " below"
        )


def inverse_of(weights: PyTree, damping: Array | float) -> Fn:
    """The inverse of the damped Hessian of the last layer."""
    return influence.projected(weights["pairs"], damping=damping)


def influences(
    weights: PyTree, features: Array, y: Array, damping: Array | float
) -> influence.Influence:
    """Of all training images on a test image, given by its features."""
    test = {"features": features, "label": y}
    inverse = inverse_of(weights, damping)
    return influence.of_training(
        influence.softmax_loss, weights["head"], weights["train"], test, inverse
    )
