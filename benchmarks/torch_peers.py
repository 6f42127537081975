"""What we are compared with: the same network and methods, written in PyTorch.

Images are `[N, 3, H, W]`, in PyTorch's default layout or in `channels_last`, which is
its fast one on CPU.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

try:
    import torch
    from captum import attr
    from torch import nn
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"no module {error.name!r}: these benchmarks compare with PyTorch and Captum,"
        " which pip install -e '.[bench]' brings on Python 3.11",
        name=error.name,
    ) from error

FORMATS = {
    "PyTorch NCHW": torch.contiguous_format,
    "PyTorch channels_last": torch.channels_last,
}
Net = Callable[[torch.Tensor], torch.Tensor]
NotTaken = torch._dynamo.exc.TorchDynamoException
"""What `torch.compile` raises for what it does not take."""


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1 from our parameters; every non-linearity is a module of its own.

    Captum's DeepLIFT replaces the gradient of modules, one use each.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        act: Callable[[], nn.Module],
        mean: Any,
        std: Any,
    ):
        super().__init__()
        self.mean, self.std = (_buffer(v) for v in (mean, std))
        self.conv1 = nn.Sequential(conv(params["conv1"], stride=2), act())
        fires = (name for name in params if name.startswith("fire"))
        self.fires = nn.ModuleDict(
            {name: _Fire(params[name], act) for name in sorted(fires)}
        )
        self.pools = nn.ModuleDict(
            {name: nn.MaxPool2d(3, 2, ceil_mode=True) for name in _POOLED}
        )
        self.conv10 = nn.Sequential(conv(params["conv10"]), act())

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last map `[N, 512, h, w]` before the classifier."""
        h = self.conv1((x - self.mean) / self.std)
        for name, fire in self.fires.items():
            h = fire(self.pools[name](h) if name in _POOLED else h)
        return h

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits `[N, K]` of images `[N, 3, H, W]` in [0, 1]."""
        return self.conv10(self.features(x)).mean((2, 3))


_POOLED = ("fire2", "fire4", "fire6")


class _Fire(nn.Module):
    def __init__(self, params: Mapping[str, Any], act: Callable[[], nn.Module]):
        super().__init__()
        self.squeeze = nn.Sequential(conv(params["squeeze"]), act())
        self.one = nn.Sequential(conv(params["expand1x1"]), act())
        self.three = nn.Sequential(conv(params["expand3x3"], padding=1), act())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.squeeze(x)
        return torch.cat([self.one(h), self.three(h)], 1)


def conv(params: Mapping[str, Any], stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """A convolution with our kernel and bias, which are not trained."""
    kernel = torch.tensor(np.asarray(params["kernel"]).transpose(3, 2, 0, 1).copy())
    outputs, inputs, side, _ = kernel.shape
    conv = nn.Conv2d(inputs, outputs, side, stride, padding)
    conv.weight = nn.Parameter(kernel, requires_grad=False)
    bias = torch.tensor(np.array(params["bias"]))
    conv.bias = nn.Parameter(bias, requires_grad=False)
    return conv


def _buffer(values: Any) -> nn.Buffer:
    return nn.Buffer(torch.tensor(np.asarray(values, np.float32)).reshape(1, -1, 1, 1))


def images(x: Any, layout: str) -> torch.Tensor:
    """Our images `[N, H, W, C]` in one of the `FORMATS`."""
    tensor = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy())
    return tensor.contiguous(memory_format=FORMATS[layout])


def ours(x: torch.Tensor) -> np.ndarray:
    """Images or maps of theirs as ours: channels last."""
    x = x.detach()
    return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).numpy()


def convolution(x: torch.Tensor, kernel: Any, layout: str) -> torch.Tensor:
    """Of images with a kernel `[3, 3, I, O]` of ours, padded to the same size."""
    weight = torch.tensor(np.asarray(kernel).transpose(3, 2, 0, 1).copy())
    weight = weight.contiguous(memory_format=FORMATS[layout])
    return nn.functional.conv2d(x, weight, padding=1)


def gradient(net: Net, x: torch.Tensor, y: torch.Tensor, graph: bool = False) -> Any:
    """The gradient of each image's logit, `[N, 3, H, W]`."""
    x = x if x.requires_grad else x.detach().requires_grad_()
    score = net(x).gather(1, y[:, None]).sum()
    return torch.autograd.grad(score, x, create_graph=graph)[0]


def heatmap(attribution: torch.Tensor) -> torch.Tensor:
    """Absolute values, summed over channels and scaled to sum to one: `[N, H, W]`."""
    saliency = attribution.abs().sum(1)
    return saliency / saliency.sum((1, 2), keepdim=True)


def integrated_gradients(
    net: Net, x: torch.Tensor, y: torch.Tensor, steps: int, graph: bool = False
) -> torch.Tensor:
    """The right Riemann sum from black, one point of all images at a time."""
    x = x if x.requires_grad else x.detach().requires_grad_()
    total = torch.zeros_like(x)
    for number in range(1, steps + 1):
        total = total + gradient(net, x * (number / steps), y, graph)
    return x * total / steps


def climbed(
    net: Net,
    x: torch.Tensor,
    y: torch.Tensor,
    mask: Any,
    path: int,
    steps: int,
    radius: float,
    step_size: float,
    judge: Net | None = None,
) -> torch.Tensor:
    """Steps of the top-k attack by double backward, on the gradient or a path of it.

    A judge explains every iterate; of those whose label it keeps, the one with the
    least saliency on the mask is returned, instead of the last.
    """
    chosen = torch.tensor(np.asarray(mask, np.float32))
    start, z = x, x
    best, least = (x, _left(judge, x, y, chosen)) if judge else (x, None)
    for _ in range(steps):
        z = z.detach().requires_grad_()
        if path:
            attribution = integrated_gradients(net, z, y, path, graph=True)
        else:
            attribution = gradient(net, z, y, graph=True)
        (climb,) = torch.autograd.grad(-(heatmap(attribution) * chosen).sum(), z)
        z = z.detach() + step_size * climb.sign()
        z = torch.clamp(z, start - radius, start + radius).clamp(0, 1)
        if judge:
            left = _left(judge, z, y, chosen)
            better = left < least
            best = torch.where(better[:, None, None, None], z, best)
            least = torch.where(better, left, least)
    return best if judge else z


def _left(
    judge: Net, x: torch.Tensor, y: torch.Tensor, chosen: torch.Tensor
) -> torch.Tensor:
    """Saliency on the mask, `[N]`; infinite where the label is another."""
    x = x.detach().requires_grad_()
    logits = judge(x)
    score = logits.gather(1, y[:, None]).sum()
    left = (heatmap(torch.autograd.grad(score, x)[0]) * chosen).sum((1, 2))
    return torch.where(logits.argmax(1) == y, left, torch.inf)


def hessian_vector_product(
    net: Net, x: torch.Tensor, y: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    """Of each image's logit, by double backward."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad((gradient(net, x, y, graph=True) * v).sum(), x)[0]


def captum_integrated_gradients(
    net: Net, x: torch.Tensor, y: torch.Tensor, steps: int
) -> torch.Tensor:
    """Captum's, one point of all images at a time."""
    return attr.IntegratedGradients(net).attribute(
        x, target=y, n_steps=steps, method="riemann_right", internal_batch_size=len(x)
    )


def captum_deep_lift(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Captum's, from black."""
    return attr.DeepLift(net).attribute(x, target=y)
