"""Influence functions: which training examples a prediction leans on, and attacks.

**The sign.** The influence of a training example on a test example is
`g_test (H + damping)^-1 g_train`, with the gradients `g` of the two losses and the mean
`H` of the training examples' Hessians. Positive means that the example *helps*: trained
without it, the network's loss on the test example would be higher, by about the
influence divided by the number of training examples. It is the sign of the code of
Ghorbani et al. 2019; their text, and Koh and Liang 2017, have the opposite one, what
the test loss gains when the training example gets *more* weight.

**The damping** is added to the diagonal. Where training minimizes the mean loss plus
`damping / 2` times the squared length of the parameters, it is part of the Hessian and
the influence is that of this training; anything above is a regularization of the
inverse, which takes the influence away from that of leaving an example out.

- `losses`: as functions of the parameters that count.
- `scores`: influences, and the direction in which chosen examples have theirs.
- `inverses`: what stands for `(H + damping)^-1`. Another is `curvature.solve` with
  `curvature.mean_hessian`, or with `curvature.mean_gauss_newton`.
- `last_layer`: a softmax layer on fixed features, whose Hessian is formed.
- `attack`: what an attack on the influences of a test image climbs.
"""

from protojax.methods.influence.attack import demote, feature_steps, suppressed
from protojax.methods.influence.inverses import lissa, projected, sampled_hessian
from protojax.methods.influence.last_layer import (
    all_eigenpairs,
    softmax_hessian,
    softmax_logits,
    softmax_loss,
)
from protojax.methods.influence.losses import cross_entropy, restrict
from protojax.methods.influence.scores import (
    Influence,
    direction,
    of_training,
    slope,
)

__all__ = [
    "Influence",
    "all_eigenpairs",
    "cross_entropy",
    "demote",
    "direction",
    "feature_steps",
    "lissa",
    "of_training",
    "projected",
    "restrict",
    "sampled_hessian",
    "slope",
    "softmax_hessian",
    "softmax_logits",
    "softmax_loss",
    "suppressed",
]
