"""What the experiments on fragility share: explanations by name, and smooth twins.

`fragility` and `strength` attack and judge explanations in the same way; how, is here.
"""

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from protojax import activations, attributions, metrics
from protojax.contracts import Array, Explain, Fn, Key, PyTree
from protojax.mechanisms import ascent

NO_TWIN = ("deep_lift", "lrp", "deep_taylor")
"""Explanations that move with the input on a ReLU network too: they need no twin."""

VARIANTS = {
    "smooth_gradient_one_draw": "smooth_gradient",
    "deep_lift_winner_take_all": "deep_lift",
    "integrated_gradients_of_probability": "integrated_gradients",
}
"""Names besides those in `protojax.attributions`, and what each is a variant of:
SmoothGrad attacked on one draw of noise, where else every step has its own; DeepLIFT
with max pooling as in the authors' code, by which contributions do not add up;
integrated gradients that are attacked as those of the softmax probability, as in the
authors' code, and judged as those of the logit."""

UNSEEN = {
    "guided_grad_cam": "needs a layer: write a script of your own (docs/howto.md)",
    "grad_cam": "needs a layer: write a script of your own (docs/howto.md)",
    "class_activation": "needs a layer: write a script of your own (docs/howto.md)",
    "conductance": "explains a layer, not the image",
}
"""Attributions that no script here can look at, and why."""

UNCLIMBED = {
    "guided_gradient": "has no smooth twin that an attack could follow",
    "igos": "is a search of its own, too long to be followed",
}
"""Those that can be judged, but not attacked, and why."""

SHARPNESS = 20.0
"""How much sharper the twin's softplus is than the typical unit's scale."""


def explanation(
    attribution: str,
    points: int,
    key: Key,
    fn: Fn,
    y: Array,
    x: Array,
    *,
    color: tuple[float, ...] = (0.0, 0.0, 0.0),
) -> Array:
    """Explain the logit of class `y` by a map `[H, W]` that sums to one."""
    start = jnp.broadcast_to(jnp.asarray(color, x.dtype), x.shape)
    path = {"steps": points, "rule": attributions.right, "baseline": start}
    noise = {"key": key, "samples": points}
    known: dict[str, Any] = {
        "integrated_gradients": path,
        "smooth_gradient": noise,
        "igos": {"key": key},
        "deep_lift": {"baseline": start},
        "deep_lift_winner_take_all": {
            "baseline": start,
            "pool": activations.winner_take_all,
        },
    }
    name = VARIANTS.get(attribution, attribution)
    knobs = known.get(attribution, known.get(name, {}))
    explain = getattr(attributions, name)
    return attributions.heatmap(explain(lambda z: fn(z)[y], x, **knobs))


class Climbed(NamedTuple):
    """An explanation as the recipes of `protojax.attacks` take it.

    Attributes:
      explain: `[H, W, C] -> [H, W]`, of the network: what iterates are judged by.
      twin: the same of the smooth twin, which is climbed; it takes a key if there is
        noise.
      noise: a key, if what is climbed is drawn anew at every step.
    """

    explain: Explain
    twin: Fn
    noise: Key | None


def climbed(
    attribution: str,
    points: int,
    key: Key,
    fn: Fn,
    y: Array,
    x: Array,
    *,
    beta: Array,
    color: tuple[float, ...] = (0.0, 0.0, 0.0),
) -> Climbed:
    """An explanation of a network, and what an attack on it follows."""
    map_of = functools.partial(explanation, attribution, points, color=color)
    smooth = smooth_twin(fn, beta, x) if needs_twin(attribution) else fn
    if attribution != "smooth_gradient":
        nets = fn, smooth
        if attribution == "integrated_gradients_of_probability":
            nets = tuple(functools.partial(probabilities, net) for net in nets)
        one, other = (functools.partial(map_of, key, net, y) for net in nets)
        return Climbed(one, other, None)
    judged, noise = jax.random.split(key)
    twin = lambda z, *, key: map_of(key, smooth, y, z)  # noqa: E731
    return Climbed(functools.partial(map_of, judged, fn, y), twin, noise)


def probabilities(fn: Fn, x: Array) -> Array:
    """What a network of logits makes of an image, as probabilities."""
    return jax.nn.softmax(fn(x))


class Target(NamedTuple):
    """An image as a network sees it, and how its explanations are compared.

    Attributes:
      x: the image.
      y: the class that the network predicts.
      model: the network with its weights.
      k: how many pixels are the top of a map.
      color: where integrated gradients and DeepLIFT start.
    """

    x: Array
    y: Array
    model: Fn
    k: int
    color: tuple[float, ...]

    def judge(self, attribution: str, points: int, key: Key) -> Explain:
        """An explanation of the network, by which an attack is judged."""
        return functools.partial(
            *(explanation, attribution, points, key, self.model, self.y),
            color=self.color,
        )

    def climbed(
        self, attribution: str, points: int, key: Key, *, beta: Array
    ) -> Climbed:
        """The same as an attack follows it."""
        return climbed(
            *(attribution, points, key, self.model, self.y, self.x),
            beta=beta,
            color=self.color,
        )


def target(
    fn: Fn,
    weights: PyTree,
    x: Array,
    k: int | None,
    color: tuple[float, ...] = (0.0, 0.0, 0.0),
) -> Target:
    """Look at an image with a network."""
    model = functools.partial(fn, weights)
    return Target(x, jnp.argmax(model(x)), model, k_of(k, x), color)


def needs_twin(attribution: str) -> bool:
    """Whether the map of a ReLU network moves with the image by jumps alone."""
    return VARIANTS.get(attribution, attribution) not in NO_TWIN


def check(
    names: Sequence[str],
    *,
    knob: str = "attributions",
    refused: Mapping[str, str] = UNSEEN | UNCLIMBED,
) -> None:
    """Refuse explanations that there are not, or that cannot be attacked."""
    if not names:
        raise ValueError(f"`{knob}` is empty: give at least one")
    for name in names:
        if name in refused or not _explains(name):
            known = [
                seen for seen in (*vars(attributions), *VARIANTS) if _explains(seen)
            ]
            choices = ", ".join(seen for seen in known if seen not in refused)
            none = f"is not in `protojax.attributions`: choose from {choices}"
            raise ValueError(f"`{knob}` has {name!r}, which {refused.get(name, none)}")


def _explains(name: str) -> bool:
    found = getattr(attributions, VARIANTS.get(name, name), None)
    return inspect.isfunction(found) and "score" in inspect.signature(found).parameters


def k_of(k: int | None, x: Array) -> int:
    """How many pixels count as the top: the authors' 1000 of 227 x 227, or a tenth."""
    pixels = x.shape[0] * x.shape[1]
    return k or (1000 if min(x.shape[:2]) >= 200 else pixels // 10)


def middle(a: Array) -> Array:
    """Where the center of mass of a uniform map is."""
    return (jnp.array(a.shape, a.dtype) - 1) / 2


def compared(a: Array, b: Array, k: int) -> dict[str, Array]:
    """How much two maps have in common."""
    return {
        "overlap": metrics.top_k_intersection(a, b, k=k),
        "rank": metrics.rank_correlation(a, b),
    }


def outcome(fn: Fn, x: Array, y: Array, found: ascent.Ascent) -> dict[str, Array]:
    """What became of an image under attack: recomputed, where it can be."""
    return {
        "confidence_before": metrics.confidence(fn, x, y),
        "confidence_after": metrics.confidence(fn, found.x, y),
        "label_kept": jnp.argmax(fn(found.x)) == y,
        "linf": metrics.linf(x, found.x),
        "found": found.step > 0,
        "step": found.step,
        "stalled": found.stalled,
    }


def smooth_twin(fn: Fn, beta: Array, x: Array) -> Fn:
    """The softplus twin of a ReLU network; a network that is smooth is its own."""
    if not has_relu(fn, x):
        return fn
    return activations.replace(fn, activations.softplus(beta))


def has_relu(fn: Fn, x: Array) -> bool:
    """Whether there is a ReLU to replace."""
    try:
        jax.eval_shape(activations.replace(fn, jax.nn.softplus), x)
    except activations.NoReLU:
        return False
    return True
