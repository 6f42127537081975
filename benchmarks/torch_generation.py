"""Feature visualization in PyTorch: the algorithm of Lucent, and Prototype Generation.

Lucent's, from its published description: waves in decorrelated colors; each step pads
the image, shifts, resizes and rotates it, shifts it again, one draw for the batch, and
Adam takes the sum over the batch. Shifts are slices here, and cost nearly nothing.
Prototype Generation is ours, in pixels: one random affine map for each image, the
difference of neighbors as penalty, Adam and clipping.
"""

import math
import random
from collections.abc import Callable

import numpy as np

from benchmarks import torch_peers
from benchmarks.torch_peers import nn, torch
from protojax.methods.generation import colors, recipes

functional = nn.functional
Net = torch_peers.Net
Params = tuple[torch.Tensor, ...]


def waves(
    net: Net, params: Params, y: torch.Tensor, steps: int, *, transformed: bool = True
) -> torch.Tensor:
    """Steps of Lucent's algorithm: the images `[N, 3, H, W]` after them.

    Args:
      net: in evaluation mode.
      params: real and imaginary parts, `[N, 3, H, W // 2 + 1]`.
      y: `[N]` classes.
      steps: how many.
      transformed: whether there are transforms.
    """
    leaves = [part.clone().requires_grad_() for part in params]
    height, half = params[0].shape[2:]
    width = 2 * (half - 1)
    scale, mix = _amplitudes(height, width), _mixing()

    def render() -> torch.Tensor:
        spectrum = torch.complex(*leaves) * scale
        planes = torch.fft.irfft2(spectrum, s=(height, width)) / 4
        return torch.sigmoid(torch.einsum("ij,njhw->nihw", mix, planes))

    def loss() -> torch.Tensor:
        image = render()
        return -_logits(net, _lucent(image) if transformed else image, y).sum()

    _descend(leaves, loss, steps)
    return render()


def pixels(
    net: Net, params: Params, y: torch.Tensor, steps: int, *, transformed: bool = True
) -> torch.Tensor:
    """Steps of Prototype Generation: the images `[N, 3, H, W]` after them."""
    leaves = [params[0].clone().requires_grad_()]

    def loss() -> torch.Tensor:
        (x,) = leaves
        seen = _affine(x) if transformed else x
        down, across = x[:, :, 1:] - x[:, :, :-1], x[..., 1:] - x[..., :-1]
        rough = down.abs().mean((1, 2, 3)) + across.abs().mean((1, 2, 3))
        return (rough - _logits(net, seen, y)).sum()

    def clip() -> None:
        with torch.no_grad():
            leaves[0].clamp_(0, 1)

    _descend(leaves, loss, steps, clip)
    return leaves[0]


WAYS = {"Lucent's algorithm": waves, "the same": pixels}


def _descend(
    leaves: list[torch.Tensor],
    loss: Callable[[], torch.Tensor],
    steps: int,
    after: Callable[[], None] = lambda: None,
) -> None:
    optimizer = torch.optim.Adam(leaves, lr=0.05, eps=1e-12)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        after()


def _logits(net: Net, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return net(x).gather(1, y[:, None])


def _lucent(x: torch.Tensor) -> torch.Tensor:
    """Pad 12, jitter 8, scale, rotate, jitter 4."""
    x = functional.pad(x, (12,) * 4, value=0.5)
    x = _jittered(x, 8)
    factor = random.choice(recipes.LUCID_SCALES)
    x = functional.interpolate(x, scale_factor=factor, mode="bilinear")
    angle = math.radians(random.choice(recipes.LUCID_DEGREES))
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).expand(len(x), 2, 3)
    return _jittered(_warped(x, turn), 4)


def _jittered(x: torch.Tensor, pixels: int) -> torch.Tensor:
    row, column = random.randint(0, pixels), random.randint(0, pixels)
    height, width = x.shape[2] - pixels, x.shape[3] - pixels
    return x[:, :, row : row + height, column : column + width]


def _affine(x: torch.Tensor) -> torch.Tensor:
    """Rotation to 20 degrees, scale to 0.3, shift to 0.2, for each image another."""
    count = len(x)
    angle = math.radians(20) * (2 * torch.rand(count) - 1)
    scale = 1 + 0.3 * (2 * torch.rand(count) - 1)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    shift = 0.4 * (2 * torch.rand(count, 2) - 1)
    first = torch.stack([cos, -sin, shift[:, 0]], 1)
    second = torch.stack([sin, cos, shift[:, 1]], 1)
    return _warped(x - 0.5, torch.stack([first, second], 1)) + 0.5


def _warped(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    grid = functional.affine_grid(matrix, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def _amplitudes(height: int, width: int) -> torch.Tensor:
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    lowest = torch.clamp(torch.hypot(rows, columns), min=1 / max(height, width))
    return math.sqrt(height * width) / lowest


def _mixing() -> torch.Tensor:
    return torch.tensor(colors.CORRELATION.astype(np.float32))
