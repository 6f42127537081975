"""How strong is the top-k attack on explanations really, and what does it reach?

Claim: an attack must be shown to be strong before what withstands it is called robust
(Carlini et al., On evaluating adversarial robustness, 2019). Three questions:

- Do more steps, random starts or a sharper softplus twin find more damage?
- Does an attack on one explanation move the others, more than random signs do?
- Does an attack on SmoothGrad survive noise that it has not seen, and does it help to
  draw new noise at every step?

    python -m experiments.strength                  the embedded birds
    python -m experiments.strength cifar10          ResNet-20, the top 100 pixels

What is attacked and judged is as in experiments/fragility.py; what came of it is in
docs/strength.md.
"""

import dataclasses
import functools
import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from experiments import cli, explained, fragility, strength_report
from protojax import attacks, metrics, objectives, sweeps
from protojax.contracts import Array, Fn, Key, PyTree
from protojax.mechanisms import ascent

_log = logging.getLogger(__name__)

RANDOM = "random"
"""What stands in the transfer matrix for no attack at all: one draw of signs."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Which attack is varied, how, and on how many images."""

    model: str = "parts"
    """A name from experiments/networks.py, or package.module:function of your own."""
    data: str | None = None
    """Images: parts, folder:PATH, npz:PATH or tfds:NAME; the model's own if not given.
    """
    split: str | None = None
    """Which part of the data; its test images if not given, or all where none are
    apart."""
    image_size: int | None = None
    """Pixels; the model's usual ones if not given."""
    images: int = 16
    """How many images, out of those that the network classifies correctly."""
    k: int | None = None
    """Pixels of the top; if not given 1000 above 200 pixels, else a tenth."""
    radius: float = 2.0
    """L-infinity budget, in gray levels of 255."""
    step_size: float = 0.5
    """Length of a step, in gray levels of 255."""
    attribution: str = "gradient"
    """The explanation on which steps, starts and sharpness are varied."""
    steps: tuple[int, ...] = (10, 30, 100, 300)
    """Steps of the attack from the image itself."""
    climb: int = 100
    """Steps wherever something else is varied."""
    starts: int = 4
    """Random starts, of which the best is taken."""
    sharpness: tuple[float, ...] = (5.0, 10.0, 20.0, 50.0, 100.0)
    """How much sharper the twin's softplus is than the typical unit's scale."""
    attributions: tuple[str, ...] = (
        "gradient",
        "integrated_gradients",
        "smooth_gradient",
        "deep_lift",
        "input_x_gradient",
    )
    """Explanations that are attacked in turn, and judged all."""
    bystanders: tuple[str, ...] = ("guided_gradient",)
    """Explanations that are judged, and never attacked."""
    points: int = 50
    """Points on the path of integrated gradients, or samples of SmoothGrad, in the
    maps that are judged."""
    attack_points: int = 10
    """The same in the maps that an attack climbs."""
    noise_samples: tuple[int, ...] = (4, 16)
    """Samples of SmoothGrad in the attacks that are judged with other noise."""
    chunk: int = 8
    """Images per part of the results."""
    seed: int = 0
    """Of all that is random."""


def top_k(
    model: Fn, climbed: explained.Climbed, x: Array, **climb: Any
) -> ascent.Ascent:
    """Run the top-k attack on an explanation."""
    follow = {"twin": climbed.twin, "noise": climbed.noise, **climb}
    return attacks.top_k(model, climbed.explain, x, **follow)


def varied(
    fn: Fn,
    config: Config,
    weights: PyTree,
    example: dict,
    key: Key,
    *,
    steps: int,
    starts: int,
    sharpness: Array,
    unit: Array,
    radius: Array,
    step_size: Array,
) -> dict[str, Array]:
    """Attack one explanation from the image itself (no starts), or from random ones."""
    x = example["image"]
    start_key, climbed_key, judged_key = jax.random.split(key, 3)
    model = functools.partial(fn, weights)
    y, k = jnp.argmax(model(x)), explained.k_of(config.k, x)
    beta = sharpness * unit
    climbed = explained.climbed(
        config.attribution, config.attack_points, climbed_key, model, y, x, beta=beta
    )
    climb = {"k": k, "radius": radius, "step_size": step_size, "steps": steps}
    attack = lambda start: top_k(model, climbed, x, key=start, **climb)  # noqa: E731
    if starts:
        each = jax.vmap(attack)(jax.random.split(start_key, starts))
    else:
        each = jax.tree.map(lambda leaf: leaf[None], attack(None))
    judge = functools.partial(
        explained.explanation, config.attribution, config.points, judged_key, model, y
    )
    before = judge(x)
    row = {
        "beta": beta,
        "stalled": jnp.all(each.stalled),
        "twin_agrees": jnp.argmax(explained.smooth_twin(model, beta, x)(x)) == y,
    }
    for name, place in {"best": jnp.argmax(each.value), "first": 0}.items():
        z = each.x[place]
        row |= {f"{name}_{what}": m for what, m in moved(before, judge(z), k).items()}
        row[f"{name}_found"] = jnp.any(z != x)
    return row


def transferred(
    fn: Fn,
    config: Config,
    weights: PyTree,
    example: dict,
    key: Key,
    *,
    attack_on: str,
    beta: Array,
    radius: Array,
    step_size: Array,
) -> dict[str, Array]:
    """Attack one explanation, and see how far each of them moved."""
    x = example["image"]
    attack_key, judged_key = jax.random.split(key)
    model = functools.partial(fn, weights)
    y, k = jnp.argmax(model(x)), explained.k_of(config.k, x)
    if attack_on == RANDOM:
        any_kept = objectives.label_kept(functools.partial(metrics.linf, x), model, x)
        found = attacks.random_sign(any_kept, x, radius=radius, key=attack_key)
    else:
        climbed = explained.climbed(
            attack_on, config.attack_points, attack_key, model, y, x, beta=beta
        )
        climb = {"radius": radius, "step_size": step_size, "steps": config.climb}
        found = top_k(model, climbed, x, k=k, **climb)
    row = {"found": jnp.any(found.x != x), "stalled": found.stalled}
    maps = {"before": [], "after": []}
    for name in judged(config):
        judge = functools.partial(
            explained.explanation, name, config.points, judged_key, model, y
        )
        a, b = judge(x), judge(found.x)
        row |= {f"{what}_{name}": m for what, m in moved(a, b, k).items()}
        maps["before"].append(a)
        maps["after"].append(b)
    pictures = {name: jnp.stack(each) for name, each in maps.items()}
    return {**row, **pictures, "image": x, "perturbed": found.x}


def seeded(
    fn: Fn,
    config: Config,
    weights: PyTree,
    example: dict,
    key: Key,
    *,
    attack_on: str,
    samples: int,
    beta: Array,
    radius: Array,
    step_size: Array,
) -> dict[str, Array]:
    """Attack SmoothGrad with noise of its own; judge it with that and with other."""
    x = example["image"]
    own, *others = jax.random.split(key, 3)
    model = functools.partial(fn, weights)
    y, k = jnp.argmax(model(x)), explained.k_of(config.k, x)
    climbed = explained.climbed(attack_on, samples, own, model, y, x, beta=beta)
    climb = {"radius": radius, "step_size": step_size, "steps": config.climb}
    found = top_k(model, climbed, x, k=k, **climb)

    def maps(count: int, noise: Key) -> Array:
        """Before and after."""
        draw = functools.partial(
            explained.explanation, attack_on, count, noise, model, y
        )
        return jax.lax.map(draw, jnp.stack([x, found.x]))

    other, another = (maps(samples, noise) for noise in others)
    row = {"found": jnp.any(found.x != x), "stalled": found.stalled}
    pairs = {
        "own": (climbed.explain(x), climbed.explain(found.x)),
        "other": other,
        "many": maps(config.points, others[0]),
        "floor": (other[0], another[0]),
    }
    for name, (a, b) in pairs.items():
        row |= {f"{what}_{name}": m for what, m in moved(a, b, k).items()}
    return row


def moved(a: Array, b: Array, k: int) -> dict[str, Array]:
    """How much two maps have in common."""
    return {
        "overlap": metrics.top_k_intersection(a, b, k=k),
        "rank": metrics.rank_correlation(a, b),
    }


def judged(config: Config) -> tuple[str, ...]:
    """All explanations of the transfer matrix."""
    return (*config.attributions, *config.bystanders)


def studies(config: Config, setup: fragility.Setup) -> dict[str, tuple]:
    """The three sweeps: folder, function of one example, and settings."""
    fn, beta = setup.network.fn, setup.beta
    ball = {"radius": [config.radius / 255], "step_size": [config.step_size / 255]}
    usual = explained.SHARPNESS
    alone = [
        {"steps": steps, "starts": 0, "sharpness": usual} for steps in config.steps
    ]
    alone += [
        {"steps": config.climb, "starts": 0, "sharpness": sharpness}
        for sharpness in (usual, *config.sharpness)
    ]
    alone.append({"steps": config.climb, "starts": config.starts, "sharpness": usual})
    once = list({tuple(setting.items()): setting for setting in alone}.values())
    (fixed,) = sweeps.grid(unit=[beta / usual], **ball)
    found = {
        "": (varied, [{**setting, **fixed} for setting in once]),
        "transfer": (
            transferred,
            sweeps.grid(attack_on=(*config.attributions, RANDOM), beta=[beta], **ball),
        ),
        "noise": (
            seeded,
            sweeps.grid(
                attack_on=("smooth_gradient_one_draw", "smooth_gradient"),
                samples=config.noise_samples,
                beta=[beta],
                **ball,
            ),
        ),
    }
    return {
        name: (functools.partial(one, fn, config), settings)
        for name, (one, settings) in found.items()
    }


def set_up(config: Config) -> fragility.Setup:
    """Load network and images, and choose the twin's usual sharpness."""
    return fragility.set_up(
        fragility.Config(
            model=config.model,
            data=config.data,
            split=config.split,
            image_size=config.image_size,
            images=config.images,
        )
    )


def main(config: Config, folder: pathlib.Path) -> None:
    """Sweep three times, and report."""
    setup = set_up(config)
    _log.info("softplus twin of sharpness %.3g", setup.beta)
    for name, (one, settings) in studies(config, setup).items():
        sweeps.run(
            one,
            setup.network.weights,
            settings,
            setup.examples,
            folder / name,
            key=jax.random.key(config.seed),
            chunk=config.chunk,
            keep=setup.examples["id"][:1].tolist() if name == "transfer" else (),
        )
    x = setup.examples["image"][0]
    k = explained.k_of(config.k, x)
    strength_report.write(config, folder, k=k, pixels=x[..., 0].size)


def plan(config: Config) -> str:
    """What the run would cost."""
    setup = set_up(config)
    planned = []
    for one, settings in studies(config, setup).values():
        planned += sweeps.plan(
            one, setup.network.weights, settings, setup.examples, chunk=config.chunk
        )
    return sweeps.outline(planned)


CONFIGS = {
    "default": Config(),
    "cifar10": Config(
        model="cifar10_resnet20",
        k=100,
        climb=30,
        points=25,
        attack_points=5,
        noise_samples=(8,),
        chunk=16,
    ),
    "imagenet": Config(model="squeezenet1_1_authors", split="all", chunk=4),
    "smoke": Config(
        model="parts_small",
        images=2,
        steps=(2,),
        climb=2,
        starts=2,
        sharpness=(20.0, 50.0),
        attributions=("gradient",),
        bystanders=("deep_lift",),
        points=2,
        attack_points=2,
        noise_samples=(2,),
        chunk=4,
    ),
}

if __name__ == "__main__":
    cli.run(CONFIGS, main, __doc__, plan=plan)
