"""What `hessian` does to one image, or along one random direction, in its studies."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from experiments import explained
from protojax import attributions, curvature, metrics, objectives
from protojax.contracts import Array, Fn, Key, MatVec, PyTree, Score

if TYPE_CHECKING:
    from experiments.hessian import Config

CLASSES = 64
"""For more of them, closed forms cost more than Lanczos."""

Row = dict[str, Array]


class Seen(NamedTuple):
    """An image as a network and its smooth twin see it."""

    x: Array
    y: Array  # the class that the network predicts
    model: Fn
    score: Score  # the twin's logit of that class

    @property
    def gradient(self) -> Array:
        """Of the twin's logit."""
        return jax.grad(self.score)(self.x)

    @property
    def hessian(self) -> MatVec:
        """Of the twin's logit."""
        return curvature.hessian(self.score, self.x)


def see(fn: Fn, weights: PyTree, x: Array, beta: Array) -> Seen:
    """Look at an image with a network, and with its twin of a given sharpness."""
    model = functools.partial(fn, weights)
    smooth = explained.smooth_twin(model, beta, x)
    y = jnp.argmax(model(x))
    return Seen(x, y, model, lambda z: smooth(z)[y])


def curved(fn: Fn, weights: PyTree, example: dict, key: Key, *, beta: Array) -> Row:
    """A glance at the input Hessian of the twin's logit, for `fragility`."""
    seen = see(fn, weights, example["image"], beta)
    start, draw = jax.random.split(key)
    values, vectors, rest = curvature.top_eigenpairs(
        seen.hessian, seen.x, key=start, steps=24
    )
    return {
        "stalled": values[0] == 0,
        "eigenvalue": jnp.abs(values[0]),
        "random_curvature": length(seen.hessian(direction(draw, seen.x))),
        "gradient_norm": length(seen.gradient),
        "angle": angle(seen.gradient, vectors[0]),
        "residual": rest[0] / jnp.abs(values[0]),
    }


def angles(
    fn: Fn, config: "Config", weights: PyTree, example: dict, key: Key, *, beta: Array
) -> Row:
    """The angle of gradient and leading eigenvector, and what to hold it against.

    That is, with the same eigenvector, a random direction and the gradient at another
    image; with the same gradient, what the Hessian makes of a random direction; and the
    angle that belongs to the cross-entropy, of the network itself.
    """
    seen = see(fn, weights, example["image"], beta)
    start, draw, again = jax.random.split(key, 3)
    hessian = seen.hessian
    values, vectors, rest = curvature.top_eigenpairs(
        hessian, seen.x, key=start, steps=config.steps
    )
    random = direction(draw, seen.x)
    image_of_random = hessian(random)
    loss, of_loss = cross_entropy(seen, again, steps=config.steps)
    return {
        "stalled": values[0] == 0,
        "eigenvalue": values[0],
        "magnitude": jnp.abs(values[0]),
        "residual": rest[0] / jnp.abs(values[0]),
        "random_curvature": length(image_of_random),
        "gradient_norm": length(seen.gradient),
        "confidence": metrics.confidence(seen.model, seen.x, seen.y),
        "angle": angle(seen.gradient, vectors[0]),
        "angle_random": angle(random, vectors[0]),
        "angle_other": angle(
            see(fn, weights, example["other"], beta).gradient, vectors[0]
        ),
        "angle_range": angle(seen.gradient, image_of_random),
        "angle_cross_entropy": angle(jax.grad(loss)(seen.x), of_loss.vectors[0]),
    }


def spectra(
    fn: Fn, config: "Config", weights: PyTree, example: dict, key: Key, *, beta: Array
) -> Row:
    """The eigenvalues of two input Hessians: of the twin's logit, of the cross-entropy.

    The first by Lanczos and by quadrature; the second, of the network itself, in closed
    form, and by Lanczos on its second derivatives beside it.
    """
    seen = see(fn, weights, example["image"], beta)
    pairs_key, quadrature_key, again_key = jax.random.split(key, 3)
    hessian = seen.hessian
    pairs = curvature.top_eigenpairs(
        hessian, seen.x, key=pairs_key, num=config.values, steps=2 * config.steps
    )
    quadrature = curvature.spectral_density(
        hessian,
        seen.x,
        key=quadrature_key,
        steps=config.quadrature,
        probes=config.probes,
    )
    squares = curvature.average(quadrature, jnp.square).value * seen.x.size
    closed = has_closed_form(seen)
    of_loss = functools.partial(
        cross_entropy, seen, again_key, num=config.values, steps=2 * config.steps
    )
    lanczos = of_loss(most=0)[1].values
    best = of_loss()[1].values if closed else lanczos
    return {
        "stalled": pairs.values[0] == 0,
        "residual": pairs.residuals[0] / jnp.abs(pairs.values[0]),
        "frobenius": jnp.sqrt(squares),
        "rank": squares / pairs.values[0] ** 2,
        "confidence": metrics.confidence(seen.model, seen.x, seen.y),
        "piecewise_linear": jnp.array(is_piecewise_linear(seen.model, seen.x)),
        "closed_form": jnp.array(closed),
        "closed_form_differs": jnp.abs(lanczos[0] / best[0] - 1),
        **{f"logit_{i}": value for i, value in enumerate(pairs.values)},
        **{f"cross_entropy_{i}": value for i, value in enumerate(best)},
        "nodes": quadrature.nodes,
        "shares": quadrature.weights,
    }


def parameters(fn: Fn, config: "Config", given: PyTree, example: dict, key: Key) -> Row:
    """The spectrum of the parameter Hessian as one random direction sees it.

    Of the mean cross-entropy over images; the parameters are `weights["params"]` where
    there are such, else all weights.
    """
    del example  # its id is in the key
    weights = given["weights"]
    apart = isinstance(weights, dict) and "params" in weights

    def loss(params: PyTree, one: PyTree) -> Array:
        logits = fn({**weights, "params": params} if apart else params, one["image"])
        return -metrics.class_entry(jax.nn.log_softmax(logits), one["label"])

    params = weights["params"] if apart else weights
    examples = {name: given[name] for name in ("image", "label")}
    product = curvature.mean_hessian(loss, params, examples, batch_size=config.chunk)
    found = curvature.spectral_density(
        product, params, key=key, steps=config.quadrature, probes=1
    )
    nodes, shares = found.nodes[0], found.weights[0]
    return {
        "largest": jnp.max(nodes),
        "smallest": jnp.min(nodes),
        "trace": jnp.sum(shares * nodes) * found.dimension,
        "negative": jnp.sum(jnp.where(nodes < 0, shares, 0)),
        "parameters": found.dimension,
        "nodes": nodes,
        "shares": shares,
    }


def turned(
    fn: Fn,
    config: "Config",
    weights: PyTree,
    example: dict,
    key: Key,
    *,
    operator: str,
    beta: Array,
) -> Row:
    """What an operator predicts of steps of some lengths, and what they really move.

    `hessian` is about the gradient of the logit, `jacobian` about its normalized map.
    Steps go both ways along the leading vector and along a random one, beyond the range
    of pixels if need be. Changes are means over both ways, relative to what was there.
    """
    seen = see(fn, weights, example["image"], beta)
    start, draw = jax.random.split(key)
    scores = {"twin": seen.score, "network": lambda z: seen.model(z)[seen.y]}
    if operator == "hessian":
        fields = {name: jax.grad(score) for name, score in scores.items()}
    else:
        fields = {name: saliency(score) for name, score in scores.items()}
    turning = curvature.jacobian(fields["twin"], seen.x)
    found = curvature.top_singular(turning, seen.x, key=start, steps=config.steps)
    lengths = jnp.array(config.lengths) * (seen.x.size**0.5 / 255)
    ways = jnp.stack([found.right[0], direction(draw, seen.x)])
    slopes = jax.lax.map(lambda v: length(turning.forward(v)), ways)
    slopes /= length(fields["twin"](seen.x))
    steps = lengths[None, :, None, None, None] * ways[:, None]
    moves = {net: moved(field, seen.x, steps) for net, field in fields.items()}
    moves["predicted"] = slopes[:, None] * lengths[None]
    return {
        "stalled": found.values[0] == 0,
        **{
            f"{name}_{what}_{i}": each[way, i]
            for way, name in enumerate(("leading", "random"))
            for what, each in moves.items()
            for i in range(len(config.lengths))
        },
    }


def moved(field: Callable[[Array], Array], x: Array, steps: Array) -> Array:
    """How far steps `[..., H, W, C]`, both ways, move a field: `[...]`, relatively."""
    there = steps.reshape(-1, *x.shape)
    ends = x[None] + jnp.concatenate([jnp.zeros_like(there[:1]), there, -there])
    found = jax.lax.map(lambda z: field(z).ravel(), ends)
    changes = jnp.linalg.norm(found[1:] - found[:1], axis=1) / length(found[0])
    return jnp.mean(changes.reshape(2, *steps.shape[:-3]), axis=0)


def cross_entropy(
    seen: Seen, key: Key, *, steps: int, num: int = 1, most: int = CLASSES
) -> tuple[Score, curvature.Eigenpairs]:
    """That of the predicted class, and the leading pairs of its Hessian.

    All of them where there is a closed form for it, of `most` classes at most.
    """
    loss = objectives.cross_entropy(seen.model, seen.y)
    if has_closed_form(seen, most):
        return loss, curvature.cross_entropy_eigenpairs(seen.model, seen.x)
    hessian = curvature.hessian(loss, seen.x)
    return loss, curvature.top_eigenpairs(
        hessian, seen.x, key=key, num=num, steps=steps
    )


def has_closed_form(seen: Seen, most: int = CLASSES) -> bool:
    """Whether the cross-entropy's Hessian has one that is cheaper than Lanczos."""
    few = jax.eval_shape(seen.model, seen.x).size <= most
    return few and is_piecewise_linear(seen.model, seen.x)


def is_piecewise_linear(fn: Fn, x: Array) -> bool:
    """Whether a network has no step that bends it."""
    try:
        curvature.raise_if_curved(fn, x)
    except curvature.NotPiecewiseLinear:
        return False
    return True


def saliency(score: Score) -> Fn:
    """The normalized gradient map of a score."""
    return lambda z: attributions.heatmap(attributions.gradient(score, z))


def angle(a: Array, b: Array) -> Array:
    """Of two vectors up to their signs, in degrees, from 0 to 90."""
    cosine = jnp.abs(jnp.sum(a * b)) / (length(a) * length(b))
    return jnp.degrees(jnp.arccos(jnp.minimum(cosine, 1)))


def length(a: Array) -> Array:
    """The Euclidean one."""
    return jnp.linalg.norm(a.ravel())


def direction(key: Key, x: Array) -> Array:
    """A random one, of length one."""
    v = jax.random.normal(key, x.shape, x.dtype)
    return v / length(v)
