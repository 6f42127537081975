"""What moved: how far one map, curve or image is from another.

- `distance`: a metric is `(a, b) -> []` on two maps (or any two arrays of equal shape,
  such as two vectors of influences);
- `quality`: those that need the model or the explanation itself, because they sample
  around an image or remove its pixels.
- `localization`: a map against a mask of where it should look.
- `concepts`: whether prototypes mean one thing, by parts whose places are known.
- `misalignment`: what an attack elsewhere does to a prototype that should be local.
"""

from protojax.methods.metrics.concepts import (
    consistency,
    duplicates,
    explanation_size,
    part_hits,
    part_rates,
    patch_box,
    peak_box,
    purity,
    stability,
)
from protojax.methods.metrics.distance import (
    center_of_mass,
    center_shift,
    kendall,
    linf,
    rank_correlation,
    ssim,
    top_k_intersection,
    top_k_mask,
    truncated_center_shift,
)
from protojax.methods.metrics.localization import (
    activation_precision,
    background_share,
    high_inside,
    high_mask,
    inside_outside_difference,
    mask_overlap,
    object_share,
    outside_inside_ratio,
    pointing_energy,
    pointing_game,
)
from protojax.methods.metrics.misalignment import (
    accuracy_change,
    activation_change,
    location_change,
    rank_change,
)
from protojax.methods.metrics.quality import (
    Curve,
    class_entry,
    confidence,
    deletion,
    fidelity,
    insertion,
    local_lipschitz,
    max_sensitivity,
)

__all__ = [
    "Curve",
    "accuracy_change",
    "activation_change",
    "activation_precision",
    "background_share",
    "center_of_mass",
    "center_shift",
    "class_entry",
    "confidence",
    "consistency",
    "deletion",
    "duplicates",
    "explanation_size",
    "fidelity",
    "high_inside",
    "high_mask",
    "insertion",
    "inside_outside_difference",
    "kendall",
    "linf",
    "local_lipschitz",
    "location_change",
    "mask_overlap",
    "max_sensitivity",
    "object_share",
    "outside_inside_ratio",
    "part_hits",
    "part_rates",
    "patch_box",
    "peak_box",
    "pointing_energy",
    "pointing_game",
    "purity",
    "rank_change",
    "rank_correlation",
    "ssim",
    "stability",
    "top_k_intersection",
    "top_k_mask",
    "truncated_center_shift",
]
