"""What a network looks for, as an image: prototypes and other feature visualizations.

- `recipes`: whole methods to compare: `prototype`, `distill`, `maco`.
- `climbing`: the climb that they share, the baseline, and what comes out.
- `canvases`: what the image is made of: pixels, waves, phases; groups of images.
- `units`: what is to be shown: channels, neurons, directions, layers, caricatures.
- `losses`: uneven probabilities, high frequencies, blur, diversity.
- `paths`: whether activations are those of natural images, layer by layer.
- `fooling`: networks that show something else to visualizations.
- `entanglement`: what else a picture of a class is taken for.
- `isolation`: which part of an image a score needs; images that may be transparent.
- `colors`, `spectra`: decorrelated colors, and half spectra of images.
"""

from protojax.methods.generation.canvases import (
    Canvas,
    fourier,
    fourier_params,
    group,
    phases,
    pixels,
)
from protojax.methods.generation.climbing import (
    Generated,
    adam,
    baseline,
    climb,
    generate,
    raise_if_stalled,
    transparency,
)
from protojax.methods.generation.colors import (
    CORRELATION,
    correlate,
    decorrelate,
    from_rgb,
    to_rgb,
)
from protojax.methods.generation.entanglement import (
    Entanglement,
    asymmetry,
    class_entanglement,
    matrix_correlation,
)
from protojax.methods.generation.fooling import (
    fooling_circuit,
    fooling_holds,
    fooling_picture,
)
from protojax.methods.generation.isolation import isolate, over, translucent
from protojax.methods.generation.losses import (
    blur_penalty,
    diversity,
    high_frequency,
    isotropic_high_frequency,
    logit_variance,
    probability_variance,
    uniform_divergence,
)
from protojax.methods.generation.paths import (
    Natural,
    Path,
    Similarity,
    Success,
    channel_centered,
    leave_out,
    mean_path,
    natural_paths,
    normalized,
    path,
    path_similarity,
    path_success,
    shuffled,
)
from protojax.methods.generation.recipes import (
    ARTICLE_DEGREES,
    ARTICLE_SCALES,
    LUCID_DEGREES,
    LUCID_SCALES,
    PRESETS,
    distill,
    distill_affine,
    maco,
    maco_size,
    noisy_crop,
    prototype,
)
from protojax.methods.generation.spectra import (
    amplitudes,
    hermitian,
    inverse,
    of_phase,
    power_law,
    template,
)
from protojax.methods.generation.units import (
    caricature,
    channel,
    deepdream,
    direction,
    neuron,
)

__all__ = [
    "ARTICLE_DEGREES",
    "ARTICLE_SCALES",
    "CORRELATION",
    "LUCID_DEGREES",
    "LUCID_SCALES",
    "PRESETS",
    "Canvas",
    "Entanglement",
    "Generated",
    "Natural",
    "Path",
    "Similarity",
    "Success",
    "adam",
    "amplitudes",
    "asymmetry",
    "baseline",
    "blur_penalty",
    "caricature",
    "channel",
    "channel_centered",
    "class_entanglement",
    "climb",
    "correlate",
    "decorrelate",
    "deepdream",
    "direction",
    "distill",
    "distill_affine",
    "diversity",
    "fooling_circuit",
    "fooling_holds",
    "fooling_picture",
    "fourier",
    "fourier_params",
    "from_rgb",
    "generate",
    "group",
    "hermitian",
    "high_frequency",
    "inverse",
    "isolate",
    "isotropic_high_frequency",
    "leave_out",
    "logit_variance",
    "maco",
    "maco_size",
    "matrix_correlation",
    "mean_path",
    "natural_paths",
    "neuron",
    "noisy_crop",
    "normalized",
    "of_phase",
    "over",
    "path",
    "path_similarity",
    "path_success",
    "phases",
    "pixels",
    "power_law",
    "probability_variance",
    "prototype",
    "raise_if_stalled",
    "shuffled",
    "template",
    "to_rgb",
    "translucent",
    "transparency",
    "uniform_divergence",
]
