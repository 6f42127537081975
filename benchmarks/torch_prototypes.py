"""ProtoPNet in PyTorch, from its formulas: as published, and as it could be.

As published, distances are convolutions, that of the squares with as many filters of
ones as there are prototypes; push looks at every prototype of every image and picks on
the host; the attack runs one image after another through the whole head. As it could
be, squares are summed over channels, push and attack look only at what they need, and
images are taken together.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks import torch_peers
from benchmarks.torch_peers import nn, torch

functional = nn.functional
Distances = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
EPS = 1e-4


def published(z: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Squared distances `[N, P, h, w]` of maps `[N, D, h, w]` from `[P, D]`."""
    kernel = p[:, :, None, None]
    squares = functional.conv2d(z**2, torch.ones_like(kernel))
    products = functional.conv2d(z, kernel)
    return functional.relu(squares + (-2 * products + (p**2).sum(1)[:, None, None]))


def summed(z: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """The same, squares summed over channels and one product."""
    products = functional.conv2d(z, p[:, :, None, None])
    lengths = (p**2).sum(1)[:, None, None]
    squares = (z**2).sum(1, keepdim=True)
    return functional.relu(squares - 2 * products + lengths)


DISTANCES = {"as published": published, "squares summed": summed}


def similarity(d: torch.Tensor) -> torch.Tensor:
    """The log similarity of ProtoPNet."""
    return torch.log((d + 1) / (d + EPS))


def logits(
    z: torch.Tensor, p: torch.Tensor, votes: torch.Tensor, distances: Distances
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `[N, K]`, and distances of the nearest places `[N, P]`."""
    d = distances(z, p)
    nearest = -functional.max_pool2d(-d, d.shape[2:]).flatten(1)
    return similarity(nearest) @ votes, nearest


class Network(nn.Module):
    """SqueezeNet 1.1 up to its last map, add-on layers and prototypes, from ours."""

    def __init__(self, params: Mapping[str, Any], mean: Any, std: Any):
        super().__init__()
        self.net = torch_peers.SqueezeNet(params["backbone"], nn.ReLU, mean, std)
        del self.net.conv10
        head = params["head"]
        self.add_on = nn.ModuleList(
            torch_peers.conv(head["add_on_layers"][name]) for name in ("conv1", "conv2")
        )
        self.p = nn.Parameter(_tensor(head["prototypes"]))
        self.votes = nn.Parameter(_tensor(head["last_layer"]))
        self.requires_grad_()

    def latent(self, x: torch.Tensor) -> torch.Tensor:
        """What is compared with prototypes, `[N, D, h, w]`."""
        first, second = self.add_on
        h = functional.relu(first(self.net.features(x)))
        return torch.sigmoid(second(h))

    def groups(self, rates: Mapping[str, float], decay: float) -> list[dict]:
        """What the joint stage trains, and how; the last layer is not among it."""
        weights = {"backbone": self.net, "add_on": self.add_on}
        decayed = [
            {"params": list(m.parameters()), "lr": rates[n], "weight_decay": decay}
            for n, m in weights.items()
        ]
        return [*decayed, {"params": [self.p], "lr": rates["prototypes"]}]


def loss(
    model: Network,
    x: torch.Tensor,
    y: torch.Tensor,
    owners: torch.Tensor,
    distances: Distances,
) -> torch.Tensor:
    """Cross-entropy, cluster, separation and L1 terms, weighted as published."""
    scores, nearest = logits(model.latent(x), model.p, model.votes, distances)
    own = owners[None] == y[:, None]
    cluster = nearest.masked_fill(~own, torch.inf).amin(1).mean()
    separation = nearest.masked_fill(own, torch.inf).amin(1).mean()
    other = owners[:, None] != torch.arange(model.votes.shape[1])[None]
    l1 = (model.votes * other).abs().sum()
    entropy = functional.cross_entropy(scores, y)
    return entropy + 0.8 * cluster - 0.08 * separation + 1e-4 * l1


def trained(
    model: Network,
    x: torch.Tensor,
    y: torch.Tensor,
    owners: torch.Tensor,
    distances: Distances,
    optimizer: torch.optim.Optimizer,
) -> tuple[np.ndarray, np.ndarray]:
    """A joint training step: the loss before it, and how the prototypes moved.

    Every call is a step further on.
    """
    before = model.p.detach().clone()
    optimizer.zero_grad()
    value = loss(model, x, y, owners, distances)
    value.backward()
    optimizer.step()
    return value.detach().numpy(), (model.p.detach() - before).numpy()


@torch.no_grad()
def pushed_as_published(
    model: Network, x: torch.Tensor, y: np.ndarray, owners: np.ndarray
) -> np.ndarray:
    """Nearest patch of its class for each prototype, `[P, D]`; zeros if there is none.

    One batch of a push: all distances come to the host, where one prototype after
    another looks for its nearest patch.
    """
    z = model.latent(x)
    d, z = published(z, model.p).numpy(), z.numpy()
    best = np.zeros(model.p.shape, np.float32)
    for j, owner in enumerate(owners):
        images = np.flatnonzero(y == owner)
        if not len(images):
            continue
        found = d[images, j]
        i, row, column = np.unravel_index(found.argmin(), found.shape)
        best[j] = z[images[i], :, row, column]
    return best


@torch.no_grad()
def pushed_by_class(
    model: Network, x: torch.Tensor, y: np.ndarray, owners: np.ndarray
) -> np.ndarray:
    """The same, every image compared with the prototypes of its class alone."""
    z = model.latent(x)
    patches = z.flatten(2).transpose(1, 2)  # [N, hw, D]
    own = torch.tensor(np.stack([np.flatnonzero(owners == label) for label in y]))
    d = ((patches[:, :, None] - model.p[own][:, None]) ** 2).sum(-1)  # [N, hw, m]
    least, place = d.min(1)
    best, nearest = np.zeros(model.p.shape, np.float32), np.full(len(owners), np.inf)
    for i, prototypes in enumerate(own.numpy()):
        for k, j in enumerate(prototypes):
            if least[i, k] < nearest[j]:
                nearest[j] = least[i, k]
                best[j] = patches[i, place[i, k]].numpy()
    return best


PUSHES = {"as published": pushed_as_published, "own classes": pushed_by_class}


def attacked(
    model: Network,
    x: torch.Tensor,
    regions: Mapping[str, np.ndarray],
    ball: tuple[float, float],
    steps: int,
    *,
    together: bool,
) -> torch.Tensor:
    """Steps of the attack that moves a prototype.

    Args:
      model: in evaluation mode.
      x: `[N, 3, H, W]`.
      regions: `prototype` `[N]`, cells `target` and `source` `[N, h, w]`, and `mask`
        `[N, H, W]` of pixels.
      ball: radius and step size.
      steps: how many.
      together: all images at once, each with its own prototype alone; else one image
        after another, with all prototypes.
    """
    given = {name: torch.tensor(np.array(each)) for name, each in regions.items()}
    if together:
        return _climbed(model, x, given, ball, steps)
    return torch.cat(
        [
            _climbed(
                model, x[i : i + 1], {k: v[i] for k, v in given.items()}, ball, steps
            )
            for i in range(len(x))
        ]
    )


ATTACKS = {
    "as published": functools.partial(attacked, together=False),
    "together": functools.partial(attacked, together=True),
}


def _climbed(
    model: Network,
    x: torch.Tensor,
    regions: Mapping[str, torch.Tensor],
    ball: tuple[float, float],
    steps: int,
) -> torch.Tensor:
    j, target, source = (regions[n] for n in ("prototype", "target", "source"))
    mask = regions["mask"].float().reshape(-1, 1, *x.shape[2:])
    (radius, step_size), z = ball, x
    for _ in range(steps):
        z = z.detach().requires_grad_()
        latent = model.latent(z)
        if j.ndim:
            d = ((latent - model.p[j][:, :, None, None]) ** 2).sum(1)
        else:
            d = published(latent, model.p)[:, j]
        s = similarity(d)
        gain = (s * target).sum((-2, -1)) / target.sum((-2, -1))
        left = (s * (source & ~target)).sum((-2, -1)) / source.sum((-2, -1))
        (slope,) = torch.autograd.grad((gain - left).sum(), z)
        z = z.detach() + step_size * slope.sign() * mask
        z = torch.clamp(x + torch.clamp(z - x, -radius, radius), 0, 1)
    return z


def _tensor(values: Any) -> torch.Tensor:
    return torch.tensor(np.array(values))
