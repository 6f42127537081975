"""Explanations of one score of one image: `(score, x, *, knobs) -> [H, W, C]`.

All are signed, and of the image's shape; `heatmap` makes of any of them the
non-negative map, summing to one, that attacks and metrics look at. All are
differentiable, so that an attack can climb them.
"""

from protojax.methods.attributions.maps import (
    class_activation,
    grad_cam,
    guided_grad_cam,
    heatmap,
)
from protojax.methods.attributions.masks import igos, mask_penalty
from protojax.methods.attributions.paths import (
    Quadrature,
    conductance,
    gauss_legendre,
    integrated_gradients,
    left,
    midpoint,
    right,
    smooth_gradient,
    trapezoid,
)
from protojax.methods.attributions.propagated import (
    deep_lift,
    deep_taylor,
    gradient,
    guided_gradient,
    input_x_gradient,
    lrp,
)

__all__ = [
    "Quadrature",
    "class_activation",
    "conductance",
    "deep_lift",
    "deep_taylor",
    "gauss_legendre",
    "grad_cam",
    "gradient",
    "guided_grad_cam",
    "guided_gradient",
    "heatmap",
    "igos",
    "input_x_gradient",
    "integrated_gradients",
    "left",
    "lrp",
    "mask_penalty",
    "midpoint",
    "right",
    "smooth_gradient",
    "trapezoid",
]
