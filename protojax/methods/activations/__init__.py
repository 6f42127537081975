"""Change what a network means for an explanation, whatever it is written in.

Everything here is a set of rules over the traced function, so that it works on a plain
function as on a module of Flax or Equinox:

- `surrogate`: put another non-linearity in the place of every ReLU;
- `overrides`: other backward passes of ReLUs;
- `recording`: look at layers by name, and set them;
- `backward`: walk a function backwards by rules of one's own;
- `rescale`: the rules of DeepLIFT;
- `relevance`: the rules of layer-wise relevance propagation;
- `excited`: those of excitation backpropagation.
"""

from protojax.methods.activations.backward import BackwardRule, Site, propagate
from protojax.methods.activations.excited import contrastive, excitation
from protojax.methods.activations.overrides import guided, redirected
from protojax.methods.activations.recording import intervene, layer, layers, record
from protojax.methods.activations.relevance import (
    Layer,
    RelevanceRule,
    alpha_beta,
    box,
    epsilon,
    gamma,
    relevances,
    without_bias,
    z_plus,
    zero,
)
from protojax.methods.activations.rescale import (
    multipliers,
    two_sided,
    winner_take_all,
)
from protojax.methods.activations.surrogate import (
    NoReLU,
    agreement,
    replace,
    sharpness,
    softplus,
)

__all__ = [
    "BackwardRule",
    "Layer",
    "NoReLU",
    "RelevanceRule",
    "Site",
    "agreement",
    "alpha_beta",
    "box",
    "contrastive",
    "epsilon",
    "excitation",
    "gamma",
    "guided",
    "intervene",
    "layer",
    "layers",
    "multipliers",
    "propagate",
    "record",
    "redirected",
    "relevances",
    "replace",
    "sharpness",
    "softplus",
    "two_sided",
    "winner_take_all",
    "without_bias",
    "z_plus",
    "zero",
]
