"""Attacks: `(objective, x) -> Ascent`, and the published ones as recipes over them.

- `search`: projected gradient ascent and random signs, for any objective. The fast
  gradient sign method is `pgd(..., steps=1, step_size=radius)`.
- `directions`: along the leading eigenvectors of a score's input Hessian, and along the
  leading singular vectors of a map's Jacobian.
- `recipes`: the attacks on explanations of Ghorbani et al. 2019, which keep the label.
"""

from protojax.methods.attacks.directions import eigenvector, singular_vector
from protojax.methods.attacks.recipes import (
    COMPASS,
    mass_center,
    mass_center_truncated,
    targeted,
    top_k,
)
from protojax.methods.attacks.search import pgd, random_sign, random_walk

__all__ = [
    "COMPASS",
    "eigenvector",
    "mass_center",
    "mass_center_truncated",
    "pgd",
    "random_sign",
    "random_walk",
    "singular_vector",
    "targeted",
    "top_k",
]
