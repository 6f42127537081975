"""Attacks: `(objective, x) -> Ascent`, and the published ones as recipes over them.

- `search`: projected gradient ascent, random signs, leading eigenvectors, for any
  objective. The fast gradient sign method is `pgd(..., steps=1, step_size=radius)`.
- `recipes`: the attacks on explanations of Ghorbani et al. 2019, which keep the label.
"""

from protojax.methods.attacks.recipes import (
    COMPASS,
    mass_center,
    mass_center_truncated,
    targeted,
    top_k,
)
from protojax.methods.attacks.search import eigenvector, pgd, random_sign, random_walk

__all__ = [
    "COMPASS",
    "eigenvector",
    "mass_center",
    "mass_center_truncated",
    "pgd",
    "random_sign",
    "random_walk",
    "targeted",
    "top_k",
]
