"""Differentiable operations on one image `[H, W, C]`.

The random ones are transforms, `transform(x, *, key)` once their knobs are bound, and
can be given to `ascent.ascend` as they are.

- `transforms`: warps, shifts, blur, sizes, total variation.
- `compression`: JPEG, as Pillow's codec has it, and what to put for its rounding.
"""

from protojax.mechanisms.images.compression import (
    cubic_round,
    jpeg,
    jpeg_tables,
    random_jpeg,
    straight_through_round,
)
from protojax.mechanisms.images.transforms import (
    affine,
    gaussian_blur,
    jitter,
    magnitude,
    random_affine,
    resize,
    resize_nearest,
    total_variation,
    window,
    window_means,
)

__all__ = [
    "affine",
    "cubic_round",
    "gaussian_blur",
    "jitter",
    "jpeg",
    "jpeg_tables",
    "magnitude",
    "random_affine",
    "random_jpeg",
    "resize",
    "resize_nearest",
    "straight_through_round",
    "total_variation",
    "window",
    "window_means",
]
