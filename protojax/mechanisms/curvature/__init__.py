"""Second derivatives as products: Hessians are never formed.

Everything takes a `matvec`: inputs, parameters and Jacobians of explanations are
the same to it.
"""

from protojax.mechanisms.curvature.eigen import (
    Condition,
    Eigenpairs,
    NotPositiveDefinite,
    SingularTriplets,
    condition_number,
    top_eigenpairs,
    top_singular,
)
from protojax.mechanisms.curvature.means import mean_gauss_newton, mean_hessian
from protojax.mechanisms.curvature.piecewise import (
    NotPiecewiseLinear,
    cross_entropy_eigenpairs,
    raise_if_curved,
)
from protojax.mechanisms.curvature.products import (
    Jacobian,
    gauss_newton,
    hessian,
    hvp,
    jacobian,
)
from protojax.mechanisms.curvature.spectrum import (
    Spectrum,
    average,
    density,
    mass,
    spectral_density,
)
from protojax.mechanisms.curvature.stochastic import Estimate, diagonal, trace
from protojax.mechanisms.curvature.systems import NotConverged, Solution, solve

__all__ = [
    "Condition",
    "Eigenpairs",
    "Estimate",
    "Jacobian",
    "NotConverged",
    "NotPiecewiseLinear",
    "NotPositiveDefinite",
    "SingularTriplets",
    "Solution",
    "Spectrum",
    "average",
    "condition_number",
    "cross_entropy_eigenpairs",
    "density",
    "diagonal",
    "gauss_newton",
    "hessian",
    "hvp",
    "jacobian",
    "mass",
    "mean_gauss_newton",
    "mean_hessian",
    "raise_if_curved",
    "solve",
    "spectral_density",
    "top_eigenpairs",
    "top_singular",
    "trace",
]
