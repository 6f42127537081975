"""What protojax answers to the cases of `protojax.conformance`, by what is asked."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from protojax import (
    activations,
    attacks,
    attributions,
    cladec,
    images,
    metrics,
    models,
    objectives,
    prototypes,
    srae,
)
from protojax.conformance import JAX
from tests.ours_curvature import OURS_OF_CURVATURE
from tests.ours_generation import OURS_OF_GENERATION


def image(x):
    """A vector as an image of one pixel; an image as it is."""
    x = jnp.asarray(x, float)
    return x if x.ndim == 3 else x.reshape(1, 1, -1)


def of_image(function, x):
    """A function of a case, of the image in the place of `x`."""
    shape = np.shape(x)
    return lambda z: function(JAX, z.reshape(shape))


def attribution(method):
    """Explain in one program, and give back the shape that was given."""

    def explain(score, x, baseline=None, **knobs):
        if baseline is not None:
            knobs["baseline"] = image(baseline)
        run = jax.jit(functools.partial(method, of_image(score, x), **knobs))
        found = run(image(x))
        return found.reshape(np.shape(x)) if found.ndim == 3 else found

    return explain


def integrated_gradients(score, x, baseline, rule, steps):
    rule = getattr(attributions, rule)
    method = functools.partial(
        attributions.integrated_gradients, rule=rule, steps=steps
    )
    return attribution(method)(score, x, baseline)


def multipliers(score, x, baseline):
    found = functools.partial(activations.multipliers, functools.partial(score, JAX))
    return jax.jit(found)(jnp.asarray(x, float), jnp.asarray(baseline, float))


def class_activation(score, x, layer):
    found = attribution(attributions.class_activation)(score, x, layer=layer)
    return found.reshape(()) if np.ndim(x) == 1 else found


def excited(method):
    def explain(fn, x, start):
        run = functools.partial(method, functools.partial(fn, JAX))
        return run(jnp.asarray(x), start=jnp.asarray(start))

    return explain


LOW, SPAN = -10.0, 20.0  # inputs of these are not images: they are moved into [0, 1]


def projected_gradient(objective, x, radius, step, steps, norm):
    """Our attack returns the best iterate: the farthest is the last here."""
    start = image((np.float32(x) - LOW) / SPAN)
    run = functools.partial(
        attacks.pgd,
        lambda z: objective(JAX, LOW + SPAN * z.reshape(np.shape(x))),
        radius=radius / SPAN,
        step_size=step / SPAN,
        steps=steps,
        norm=norm,
        select=lambda z: jnp.sum(jnp.abs(z - start)),
    )
    return LOW + SPAN * jax.jit(run)(start).x.ravel()


def square(x):
    return jnp.asarray(x, float).reshape(4, 4, 1)


def saliency(score):
    score = functools.partial(score, JAX)
    flat = lambda z: score(z.ravel())
    return lambda z: attributions.heatmap(attributions.gradient(flat, z))


def top_k_slope(score, before, x, k):
    objective = objectives.top_k(saliency(score), square(before)[..., 0], k=k)
    return jax.jit(jax.grad(objective))(square(x)).ravel()


def top_k_attack(fn, twin, x, k, radius, step, steps):
    logits = lambda z: fn(JAX, z.ravel())
    of = lambda net: saliency(
        lambda ops, z: net(ops, z)[jnp.argmax(fn(JAX, jnp.asarray(x)))]
    )

    @jax.jit
    def run(z):
        knobs = {"radius": radius, "step_size": step, "steps": steps, "k": k}
        return attacks.top_k(logits, of(fn), z, twin=of(twin), **knobs).value

    return run(square(x))


def of_maps(method):
    """A function of arrays, in one program: knobs that are counts stay as they are."""

    def answer(*, k=None, **given):
        arrays = {
            name: jnp.asarray(value, None if np.asarray(value).dtype == bool else float)
            for name, value in given.items()
        }
        run = method if k is None else functools.partial(method, k=k)
        return jax.jit(run)(**arrays)

    return answer


def whole(*names):
    """Cast some arguments to integers or booleans."""

    def cast(method):
        def answer(**given):
            given = {
                name: jnp.asarray(value, int)
                if name in names
                else jnp.asarray(value, float)
                for name, value in given.items()
            }
            return method(**given)

        return answer

    return cast


def over_images(term):
    def answer(distances, labels, owners):
        each = jax.vmap(term, (0, 0, None))
        return jnp.mean(each(*map(jnp.asarray, (distances, labels, owners))))

    return answer


def initial_logits(similarities, owners):
    classes = max(owners) + 1
    kernel = prototypes.connections(tuple(map(int, owners)), classes)
    return jnp.asarray(similarities, float) @ kernel


def jpeg_gray(levels, quality):
    planes = np.broadcast_to(np.reshape(levels, (-1, 1, 1, 1)), (len(levels), 8, 8, 1))
    compress = jax.jit(jax.vmap(functools.partial(images.jpeg, quality=quality)))
    return 255 * compress(jnp.asarray(planes / 255, float))[:, 3, 5, 0]


def cubic_round(x):
    round_ = images.cubic_round
    return jax.vmap(jax.value_and_grad(round_))(jnp.asarray(x))


def resized_nearest(row, size):
    plane = jnp.broadcast_to(jnp.asarray(row), (len(row), len(row)))[..., None]
    return images.resize_nearest(plane, (size, size))[0, :, 0]


def correlated(method):
    def answer(correlations):
        correlations = jnp.asarray(correlations, float)
        alive = jnp.ones(len(correlations), bool)
        return method(srae.Correlations(correlations, alive))

    return answer


def rate_factors(epochs):
    rate = cladec.step_rate(1.0, epochs=epochs, steps=10)
    return jax.vmap(rate)(10 * jnp.arange(epochs) + 5)


def transposed_convolution(x, kernel):
    """By a decoder of one layer, whose sigmoid is taken off again."""
    model = models.Decoder((2 * len(x), 2 * len(x), 1), width=1)
    same = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    last = jnp.asarray(kernel, float).reshape(4, 4, 1, 1) / 50
    params = {"entry": same, "last": last}
    params = {name: {"kernel": k, "bias": jnp.zeros(1)} for name, k in params.items()}
    found = model.apply({"params": params}, jnp.asarray(x)[..., None])[..., 0]
    return 50 * jnp.log(found / (1 - found))


srae_maps = {
    name: of_maps(getattr(srae, name))
    for name in (
        *("pull_away", "pull_away_images", "sparse_reconstruction", "squared_error"),
        *("explained_variance", "loss_recovered", "hoyer", "active", "dead"),
        *("spread", "significant"),
    )
}
of_two_maps = {
    name: of_maps(getattr(metrics, name))
    for name in (
        *("rank_correlation", "kendall", "top_k_intersection", "center_of_mass"),
        *("center_shift", "explanation_size", "mask_overlap", "location_change"),
        *("activation_change", "accuracy_change", "part_rates"),
        *("outside_inside_ratio", "inside_outside_difference"),
    )
}

OURS = {
    **of_two_maps,
    **srae_maps,
    **OURS_OF_CURVATURE,
    **OURS_OF_GENERATION,
    "gradient": attribution(attributions.gradient),
    "integrated_gradients": integrated_gradients,
    "quadrature": lambda rule, steps: jnp.stack(getattr(attributions, rule)(steps)),
    "deep_lift": attribution(attributions.deep_lift),
    "multipliers": multipliers,
    "lrp": attribution(functools.partial(attributions.lrp, rule=activations.zero)),
    "conductance": attribution(attributions.conductance),
    "class_activation": class_activation,
    "guided_grad_cam": attribution(attributions.guided_grad_cam),
    "excitation": excited(activations.excitation),
    "contrastive": excited(activations.contrastive),
    "mask_penalty": lambda m, area, smooth: attributions.mask_penalty(
        jnp.asarray(m), area=area, smooth=smooth
    ),
    "projected_gradient": projected_gradient,
    "logits": lambda fn, x: fn(JAX, jnp.asarray(x)),
    "saliency": lambda score, x: jax.jit(saliency(score))(square(x)).ravel(),
    "top_k_slope": top_k_slope,
    "top_k_attack": top_k_attack,
    "total_variation": of_maps(images.total_variation),
    "rank_change": whole("prototype", "owners")(metrics.rank_change),
    "squared_distances": of_maps(prototypes.squared_distances),
    "similarity": of_maps(prototypes.similarity),
    "similarity_slope": of_maps(
        lambda distances: jax.vmap(jax.grad(prototypes.similarity))(distances)
    ),
    "cluster": over_images(prototypes.cluster),
    "separation": over_images(prototypes.separation),
    "mean_separation": over_images(prototypes.mean_separation),
    "off_class_l1": whole("owners")(prototypes.off_class_l1),
    "initial_logits": initial_logits,
    "enlarged": lambda a, size: prototypes.enlarge(jnp.asarray(a, float), size),
    "high_crop": lambda a: jax.jit(lambda a: prototypes.high_crop(a))(jnp.asarray(a)),
    "crop_cells": lambda crop, grid, size, margin: prototypes.crop_cells(
        jnp.array(crop), grid, size, margin=margin
    ),
    "jpeg_tables": lambda quality: jnp.stack(images.jpeg_tables(quality)),
    "jpeg_gray": jpeg_gray,
    "cubic_round": cubic_round,
    "resized_nearest": resized_nearest,
    "reconstruction_slope": of_maps(
        lambda z, decoded, q: jax.grad(srae.sparse_reconstruction, 1)(z, decoded, q)
    ),
    "scores": of_maps(
        lambda features, readout, bias: (
            srae.contributions(features, readout).sum(1) + bias
        )
    ),
    "mean_contributions": of_maps(
        lambda features, readout: srae.contributions(features, readout).mean(0)
    ),
    "accepted": lambda means: srae.accepted(jnp.array(means)),
    "shared_variance": correlated(srae.shared_variance),
    "redundancy": correlated(srae.redundancy),
    "top_k_codes": of_maps(srae.top_k),
    "linear_error": lambda covariance, encoder: cladec.linear_error(
        jnp.asarray(covariance), jnp.asarray(encoder)
    )[1],
    "linear_decoder": lambda covariance, encoder: cladec.linear_error(
        jnp.asarray(covariance), jnp.asarray(encoder)
    )[0],
    "principal_error": lambda covariance, size: cladec.principal_error(
        jnp.asarray(covariance), size=size
    ),
    "decoder_loss": lambda x, decoded, logits, y, alpha: cladec.objective(
        *map(jnp.asarray, (x, decoded, logits)), y, alpha=alpha
    )[0],
    "rate_factors": rate_factors,
    "transposed_convolution": transposed_convolution,
}
