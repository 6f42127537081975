"""Explanation networks and decoders in PyTorch, as one writes them there."""

from collections.abc import Mapping
from typing import Any

import numpy as np

try:
    import torch
    from torch import nn
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"no module {error.name!r}: this benchmark compares with PyTorch, which "
        "pip install -e '.[bench]' brings on Python 3.11",
        name=error.name,
    ) from error


class XNN(nn.Module):
    """Encoder, decoder and read-out, from our parameters."""

    def __init__(self, params: Mapping[str, Any]):
        super().__init__()
        depth = sum(name.startswith("encoder") for name in params)
        self.encoder = nn.ModuleList(
            _linear(params[f"encoder{i}"]) for i in range(depth)
        )
        self.decoder = nn.ModuleList(
            _linear(params[f"decoder{i}"]) for i in reversed(range(depth))
        )
        self.readout = _linear(params["readout"])

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return x-features, scores and decoded units."""
        h = z
        for layer in self.encoder:
            h = torch.relu(layer(h))
        again = h
        for layer in self.decoder:
            again = torch.relu(layer(again))
        return h, self.readout(h), again


def loss(model: XNN, z: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """The objective with the weights 1, 15, 5 and q = 100."""
    features, predicted, decoded = model(z)
    faith = torch.mean((predicted - scores) ** 2)
    rec = torch.mean(torch.log1p(100 * torch.mean((z - decoded) ** 2, dim=0)))
    parts = features * model.readout.weight[0]
    squares = torch.sum(parts**2, dim=0)
    alive = squares > 0
    unit = torch.where(alive, parts * torch.rsqrt(torch.where(alive, squares, 1)), 0)
    cosine = unit.T @ unit
    others = cosine - torch.diag(torch.diag(cosine))
    count = alive.sum()
    pull = torch.sum(others**2) / torch.clamp(count * (count - 1), min=1)
    return faith + 15 * rec + 5 * pull


def train(
    params: Mapping[str, Any], z: np.ndarray, scores: np.ndarray, batches: np.ndarray
) -> list[float]:
    """Train networks one after another.

    Args:
      params: `[M, ...]` their parameters.
      z: `[N, S]` units.
      scores: `[M, N, 1]`.
      batches: int `[M, steps, batch]`.

    Returns:
      `[M]` the loss of each on its last batch, after training.
    """
    units, orders = torch.tensor(z), torch.tensor(batches, dtype=torch.long)
    last = []
    for i, order in enumerate(orders):
        own = torch.tensor(scores[i])
        model = XNN({n: {k: v[i] for k, v in p.items()} for n, p in params.items()})
        adam = torch.optim.Adam(
            model.parameters(), lr=1e-3, weight_decay=1e-4, fused=True
        )
        for batch in order:
            adam.zero_grad()
            loss(model, units[batch], own[batch]).backward()
            adam.step()
        with torch.no_grad():
            last.append(float(loss(model, units[order[-1]], own[order[-1]])))
    return last


class Decoder(nn.Module):
    """The decoder of Schneider and Vlachos for a vector, from our parameters."""

    def __init__(self, params: Mapping[str, Any]):
        super().__init__()
        self.entry = _linear(params["entry"])
        names = sorted(name for name in params if name.startswith("up"))
        self.ups = nn.ModuleList(_up(params[name]) for name in (*names, "last"))

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        """Return images `[N, C, H, W]` of codes `[N, d]`."""
        h = torch.relu(self.entry(code))[:, :, None, None]
        for up in self.ups[:-1]:
            h = torch.relu(up(h))
        return torch.sigmoid(self.ups[-1](h))


def train_decoder(
    params: Mapping[str, Any], codes: np.ndarray, images: np.ndarray, steps: int
) -> list[float]:
    """Train a decoder, always on one batch.

    Args:
      params: its parameters.
      codes: `[N, d]`.
      images: `[N, H, W, C]`.
      steps: how many.

    Returns:
      `[1]` the squared error in the end.
    """
    model, given = Decoder(params), torch.tensor(codes)
    wanted = torch.tensor(images).permute(0, 3, 1, 2)
    adam = torch.optim.Adam(model.parameters(), lr=3e-4, weight_decay=1e-5, fused=True)
    for _ in range(steps):
        adam.zero_grad()
        torch.mean((model(given) - wanted) ** 2).backward()
        adam.step()
    with torch.no_grad():
        return [float(torch.mean((model(given) - wanted) ** 2))]


def _up(params: Mapping[str, Any]) -> nn.ConvTranspose2d:
    kernel, bias = (torch.tensor(np.asarray(params[k])) for k in ("kernel", "bias"))
    layer = nn.ConvTranspose2d(kernel.shape[3], kernel.shape[2], 4, 2, 1)
    with torch.no_grad():
        layer.weight.copy_(kernel.permute(3, 2, 0, 1))
        layer.bias.copy_(bias)
    return layer


def _linear(params: Mapping[str, Any]) -> nn.Linear:
    kernel, bias = (torch.tensor(np.asarray(params[k])) for k in ("kernel", "bias"))
    layer = nn.Linear(*kernel.shape)
    with torch.no_grad():
        layer.weight.copy_(kernel.T)
        layer.bias.copy_(bias)
    return layer
