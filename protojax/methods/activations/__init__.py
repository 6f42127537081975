"""Change what a network means for an explanation, whatever it is written in.

Everything here is a set of rules over the traced function, so that it works on a plain
function as on a module of Flax or Equinox:

- `surrogate`: put another non-linearity in the place of every ReLU;
- `recording`: look at layers by name, and set them.
"""

from protojax.methods.activations.recording import intervene, layers, record
from protojax.methods.activations.surrogate import (
    agreement,
    guided,
    replace,
    sharpness,
    softplus,
)

__all__ = [
    "agreement",
    "guided",
    "intervene",
    "layers",
    "record",
    "replace",
    "sharpness",
    "softplus",
]
