"""What `generation` answers to the cases of visualizations."""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from protojax import generation
from protojax.conformance import JAX


def as_it_is(image):
    return image


def wave(real, imaginary, width):
    canvas = generation.fourier((len(real), width, 1), colors=as_it_is)
    params = (jnp.asarray(part)[..., None] for part in (real, imaginary))
    return canvas.render(tuple(params))[..., 0]


def wave_coefficients(x):
    return jnp.stack(generation.fourier_params(jnp.asarray(x)[..., None]))[..., 0]


def phase_image(phase, template, width):
    return generation.of_phase(jnp.asarray(phase), jnp.asarray(template), width=width)


def standardized_image(phase, template, width):
    canvas = generation.phases(jnp.asarray(template), width=width, colors=as_it_is)
    return canvas.render(jnp.asarray(phase))


def dot_cosine(h, v, power):
    def layer(x):
        return checkpoint_name(1.0 * x, "layer")

    along = generation.direction(layer, "layer", jnp.asarray(v), power=power)
    return along(jnp.asarray(h).reshape(1, 1, -1))


def highest_in_box(score, x0):
    canvas = generation.pixels(jnp.reshape(jnp.asarray(x0), (1, -1, 1)))
    out = generation.generate(lambda x: score(JAX, x.ravel()), canvas, steps=200)
    return out.x.ravel()


def fooled_logits(logits, natural, shift, offset, gate):
    circuit = generation.fooling_circuit(
        lambda _: jnp.asarray(logits),
        lambda _: jnp.asarray(natural),
        shift=shift,
        offset=offset,
        gate=gate,
    )
    return circuit(jnp.zeros((1, 1, 3)))


def left_out_distances(layers):
    def path_of(x):
        return {"layer": x}

    layers = jnp.asarray(layers)[:, None, None]
    natural = generation.natural_paths(path_of, layers)

    def distance(x):
        rest = generation.mean_path(generation.leave_out(natural, path_of(x)))
        return generation.path_similarity(path_of(x), rest).l1[0]

    return jax.jit(jax.vmap(distance))(layers)  # their number is known in there


def beaten(l1, rank, natural_l1, natural_rank):
    picture = generation.Similarity(jnp.asarray(l1), jnp.asarray(rank))
    natural = generation.Similarity(jnp.asarray(natural_l1), jnp.asarray(natural_rank))
    return jnp.stack(generation.path_success(picture, natural)[:2])


OURS_OF_GENERATION = {
    "amplitudes": lambda size, decay: generation.amplitudes(size, decay=decay),
    "wave": wave,
    "wave_coefficients": wave_coefficients,
    "correlated_colors": lambda z: generation.correlate(jnp.asarray(z)),
    "phase_image": phase_image,
    "standardized_image": standardized_image,
    "probability_variance": lambda logits, ddof: generation.probability_variance(
        jnp.asarray(logits), ddof=ddof
    ),
    "probability_variance_slope": lambda logits: jax.grad(
        generation.probability_variance
    )(jnp.asarray(logits)),
    "high_frequency": lambda x: generation.high_frequency(jnp.asarray(x)),
    "gram_diversity": lambda features: generation.diversity(jnp.asarray(features)),
    "dot_cosine": dot_cosine,
    "highest_in_box": highest_in_box,
    "fooled_logits": fooled_logits,
    "left_out_distances": left_out_distances,
    "beaten": beaten,
}
"""By what is asked."""
OURS_OF_GENERATION |= {
    name: jax.jit(OURS_OF_GENERATION[name])
    for name in ("wave_coefficients", "gram_diversity")
}
