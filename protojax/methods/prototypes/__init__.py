"""Prototypes: "this looks like that", in the latent space of a network.

A network's feature map has at every place a vector, and each of P prototypes is such a
vector. How near the nearest place comes to each prototype is what the class is told by,
so that a prediction says of itself: this part of the image looks like that prototype.

- `distances`: how far each place is from each prototype, and how similar that is.
- `losses`: what ProtoPNet is trained with.
- `nearest`: the patches of a data set that are nearest to each prototype; push, prune.
- `fields`: which pixels a place of a feature map can see.
- `maps`: similarity maps as pictures, places as pixels.
- `regions`: regions of an image as places; `outcomes`: what an attack on them did.

Features are `[h, w, D]`, prototypes `[P, D]`. A prototype of several places is one long
vector: `patches` makes features of that kind. `owners` `[P]` says of which class each
prototype is.

References:
  Chen et al., This Looks Like That: Deep Learning for Interpretable Image Recognition,
  2019.
"""

from protojax.methods.prototypes.distances import (
    connections,
    cosine_distances,
    linear_similarity,
    min_distances,
    owners,
    patches,
    similarity,
    squared_distances,
)
from protojax.methods.prototypes.fields import Field, box, receptive_field
from protojax.methods.prototypes.losses import (
    cluster,
    mean_separation,
    off_class_l1,
    separation,
)
from protojax.methods.prototypes.maps import (
    cell_pixels,
    cell_region,
    crop_cells,
    enlarge,
    high_crop,
)
from protojax.methods.prototypes.nearest import (
    Nearest,
    merge,
    nearest,
    none_found,
    prune,
    push,
)
from protojax.methods.prototypes.outcomes import Moved, moved, rank
from protojax.methods.prototypes.regions import closed, covered_cells

__all__ = [
    "Field",
    "Moved",
    "Nearest",
    "box",
    "cell_pixels",
    "cell_region",
    "closed",
    "cluster",
    "connections",
    "cosine_distances",
    "covered_cells",
    "crop_cells",
    "enlarge",
    "high_crop",
    "linear_similarity",
    "mean_separation",
    "merge",
    "min_distances",
    "moved",
    "nearest",
    "none_found",
    "off_class_l1",
    "owners",
    "patches",
    "prune",
    "push",
    "rank",
    "receptive_field",
    "separation",
    "similarity",
    "squared_distances",
]
