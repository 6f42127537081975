"""Second derivatives as products: Hessians are never formed.

Everything takes a `matvec`: inputs, parameters and Jacobians of explanations are
the same to it.
"""

from protojax.mechanisms.curvature.eigen import top_eigenpairs
from protojax.mechanisms.curvature.products import hvp
from protojax.mechanisms.curvature.systems import NotConverged, Solution, solve

__all__ = ["NotConverged", "Solution", "hvp", "solve", "top_eigenpairs"]
