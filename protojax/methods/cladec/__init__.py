"""ClaDec: what a layer of a classifier knows, as an image decoded from it.

A decoder is trained to make the image again from the activations of a layer of a
frozen classifier; what the layer has thrown away cannot come back. What a decoder can
do at all is told by a **reference**: the same decoder on an encoder of the same kind
that is trained along (RefAE). Detail that the reference has and the explanation lacks
is what the classifier has discarded.

- `losses`: what decoders are trained for, and reconstruction against classification.
- `linear`: the same in closed form, where encoder and decoder are linear.
- `maps`: where an explanation says that information is, to be held against saliency.

Training is that of `srae.train`, of one decoder, to be mapped over alphas and seeds;
the decoders are `models.Decoder` and `models.SmallDecoder`.
"""

from protojax.methods.cladec.linear import (
    linear_decoder,
    linear_error,
    principal_components,
    principal_error,
)
from protojax.methods.cladec.losses import (
    code_shape,
    objective,
    on_batches,
    reconstruction,
    same_weight,
    step_rate,
)
from protojax.methods.cladec.maps import agreement, kept_by_layer

__all__ = [
    "agreement",
    "code_shape",
    "kept_by_layer",
    "linear_decoder",
    "linear_error",
    "objective",
    "on_batches",
    "principal_components",
    "principal_error",
    "reconstruction",
    "same_weight",
    "step_rate",
]
