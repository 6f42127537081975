"""What moved: how far one map, curve or image is from another.

- `distance`: a metric is `(a, b) -> []` on two maps (or any two arrays of equal shape,
  such as two vectors of influences);
- `quality`: those that need the model or the explanation itself, because they sample
  around an image or remove its pixels.
"""

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
from protojax.methods.metrics.quality import (
    Curve,
    class_entry,
    confidence,
    deletion,
    insertion,
    local_lipschitz,
    max_sensitivity,
)

__all__ = [
    "Curve",
    "center_of_mass",
    "center_shift",
    "class_entry",
    "confidence",
    "deletion",
    "insertion",
    "kendall",
    "linf",
    "local_lipschitz",
    "max_sensitivity",
    "rank_correlation",
    "ssim",
    "top_k_intersection",
    "top_k_mask",
    "truncated_center_shift",
]
