"""The same function, fast on CPU.

XLA's CPU back-end has slow spots: a convolution inside a loop runs as a naive nest of
loops unless its layout is NHWC/HWIO; kernel gradients of transposed convolutions,
depthwise and grouped ones (as `vmap` over weights makes them) and the derivatives of
max pooling are slow anywhere. The rules here re-emit each in a form that is not. They
act on the traced, already differentiated function, so that they need no derivative
rules and serve any order and any network.
"""

from protojax.mechanisms.lowering.forms import canonical

__all__ = ["canonical"]
