"""Curvature as PyTorch's libraries compute it, on a twin of our ResNet for CIFAR.

Vectors are dicts of our parameters' paths and shapes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import torch_peers
from benchmarks.torch_peers import nn, torch

try:
    import curvlinops
    import pyhessian
    from curvlinops.papyan2020traces import spectrum
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"no module {error.name!r}: these benchmarks compare with curvlinops and "
        "PyHessian, which pip install -e '.[bench]' brings on Python 3.11",
        name=error.name,
    ) from error

Vector = dict[str, np.ndarray]
COMPILED = ", compiled"
FORMS = tuple(
    form + how for form in ("double backward", "torch.func") for how in ("", COMPILED)
)


def flat(tree: Any) -> Vector:
    """Our parameters, or a tree like them, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


class ResNet(nn.Module):
    """The residual network for CIFAR from our variables, batch norm standing."""

    def __init__(self, variables: Mapping[str, Any], mean: Any, std: Any):
        super().__init__()
        self.mean, self.std = (_per_channel(v) for v in (mean, std))
        weights, stats = variables["params"], variables["batch_stats"]
        self.names: list[tuple[str, nn.Parameter]] = []
        self.stem = self._unit(weights, stats, "1", 1, "")
        stages = [name for name in weights if name.startswith("layer")]
        self.blocks = nn.ModuleList()
        for name in sorted(stages, key=lambda n: [int(i) for i in n[5:].split(".")]):
            stride = 2 if name.endswith(".0") and name != "layer1.0" else 1
            inner = weights[name], stats[name]
            units = [
                self._unit(*inner, number, step, f"['{name}']")
                for number, step in (("1", stride), ("2", 1))
            ]
            self.blocks.append(nn.ModuleList(units))
        linear = weights["linear"]
        self.linear = nn.Linear(*linear["kernel"].shape)
        self._adopt(self.linear, "weight", linear["kernel"].T, "['linear']['kernel']")
        self._adopt(self.linear, "bias", linear["bias"], "['linear']['bias']")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits `[N, K]` of images `[N, 3, H, W]` in [0, 1]."""
        h = torch.relu(self.stem((x - self.mean) / self.std))
        for first, second in self.blocks:
            y = second(torch.relu(first(h)))
            stride, new = h.shape[-1] // y.shape[-1], y.shape[1] - h.shape[1]
            kept = h[:, :, ::stride, ::stride]
            padding = (0, 0, 0, 0, new // 2, new - new // 2)
            h = torch.relu(y + nn.functional.pad(kept, padding))
        return self.linear(h.mean((2, 3)))

    def tensors(self, vector: Vector) -> list[torch.Tensor]:
        """A vector of ours as theirs, in the order of the parameters."""
        order = {id(parameter): name for name, parameter in self.names}
        return [
            _theirs(vector[order[id(p)]]).to(memory_format=_format(p))
            for p in self.parameters()
        ]

    def vector(self, tensors: Sequence[torch.Tensor]) -> Vector:
        """Theirs as ours."""
        order = {id(parameter): name for name, parameter in self.names}
        return {
            order[id(p)]: _ours(tensor) for p, tensor in zip(self.parameters(), tensors)
        }

    def _unit(
        self, weights: Any, stats: Any, number: str, stride: int, path: str
    ) -> nn.Module:
        kernel, norm = weights[f"conv{number}"]["kernel"], weights[f"bn{number}"]
        outputs, inputs = kernel.shape[3], kernel.shape[2]
        conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self._adopt(
            conv, "weight", _outer_first(kernel), f"{path}['conv{number}']['kernel']"
        )
        batch_norm = nn.BatchNorm2d(outputs, eps=1e-5).eval()
        for ours, theirs in (("scale", "weight"), ("bias", "bias")):
            self._adopt(
                batch_norm, theirs, norm[ours], f"{path}['bn{number}']['{ours}']"
            )
        for ours, theirs in (("mean", "running_mean"), ("var", "running_var")):
            values = torch.tensor(np.array(stats[f"bn{number}"][ours]))
            getattr(batch_norm, theirs).copy_(values)
        return nn.Sequential(conv, batch_norm)

    def _adopt(self, module: nn.Module, name: str, values: Any, path: str) -> None:
        parameter = nn.Parameter(torch.tensor(np.array(values)))
        setattr(module, name, parameter)
        self.names.append((path, parameter))


def _format(parameter: torch.Tensor) -> torch.memory_format:
    strided = parameter.ndim == 4 and not parameter.is_contiguous()
    return torch.channels_last if strided else torch.contiguous_format


def _per_channel(values: Any) -> nn.Buffer:
    return nn.Buffer(torch.tensor(np.asarray(values, np.float32)).reshape(1, -1, 1, 1))


def _outer_first(kernel: Any) -> np.ndarray:
    return np.asarray(kernel).transpose(3, 2, 0, 1)


def _theirs(values: np.ndarray) -> torch.Tensor:
    values = _outer_first(values) if values.ndim == 4 else values.T
    return torch.tensor(values.copy())


def _ours(tensor: torch.Tensor) -> np.ndarray:
    values = tensor.detach().numpy()
    return values.transpose(2, 3, 1, 0) if values.ndim == 4 else values.T


def convolution(kind: str, layout: str, x: Any, rhs: Any) -> Callable[[], np.ndarray]:
    """Make PyTorch's thunk for one layer.

    Args:
      kind: forward or kernel gradient.
      layout: one of `torch_peers.FORMATS`.
      x: images `[N, H, W, C]`.
      rhs: a kernel `[3, 3, C, C]`; for a gradient that of the result, like `x`.

    Returns:
      The thunk, whose result is laid out as ours.
    """
    images = torch_peers.images(x, layout)
    if kind == "forward":
        return lambda: torch_peers.ours(torch_peers.convolution(images, rhs, layout))
    size, pulled = (rhs.shape[-1], x.shape[-1], 3, 3), torch_peers.images(rhs, layout)
    return lambda: _ours(nn.grad.conv2d_weight(images, size, pulled, padding=1))


class Peer:
    """A library with its operator, made anew by `make`."""

    def __init__(self, net: ResNet, x: torch.Tensor, y: torch.Tensor):
        self.net, self.x, self.y = net.eval(), x, y


class Curvlinops(Peer):
    """Its Hessian operator; every product passes forward and backward again."""

    def make(self) -> Any:
        """Return the operator."""
        return curvlinops.HessianLinearOperator(
            self.net,
            nn.CrossEntropyLoss(),
            list(self.net.parameters()),
            [(self.x, self.y)],
            check_deterministic=False,
        )

    def product(self, operator: Any, v: list[torch.Tensor]) -> list[torch.Tensor]:
        """One product."""
        return operator @ v

    def eigenvalue(self, operator: Any, steps: int) -> float:
        """The largest, by its Lanczos, which does not reorthogonalize."""
        return float(spectrum.fast_lanczos(operator, steps)[0].max())

    def trace(self, operator: Any, probes: int) -> float:
        """By its Hutchinson."""
        return float(curvlinops.hutchinson_trace(operator, probes))


class PyHessian(Peer):
    """It keeps the graph of one gradient, and differentiates it for every product."""

    def make(self) -> Any:
        """Return the computation with its graph."""
        return pyhessian.hessian(
            self.net, nn.CrossEntropyLoss(), data=(self.x, self.y), cuda=False
        )

    def product(self, operator: Any, v: list[torch.Tensor]) -> list[torch.Tensor]:
        """One product."""
        return pyhessian.hessian_vector_product(operator.gradsH, operator.params, v)

    def eigenvalue(self, operator: Any, steps: int) -> float:
        """The largest, by power iterations."""
        return float(operator.eigenvalues(maxIter=steps, tol=0)[0][0])

    def trace(self, operator: Any, probes: int) -> float:
        """By its Hutchinson."""
        return float(np.mean(operator.trace(maxIter=probes, tol=0)))


PEERS: dict[str, type[Peer]] = {"curvlinops": Curvlinops, "PyHessian": PyHessian}


def parameters(
    name: str,
    work: str,
    layout: str,
    variables: Any,
    normalization: tuple[Any, Any],
    x: Any,
    y: Any,
    *args: Any,
    whole: bool = False,
) -> Callable[[], Any]:
    """Make a peer's thunk for a work on parameters, in whatever process.

    Args:
      name: one of `PEERS`.
      work: product, eigenvalue or trace.
      layout: one of `torch_peers.FORMATS`.
      variables: ours.
      normalization: mean and standard deviation of the channels.
      x: images `[N, H, W, 3]`.
      y: classes `[N]`.
      *args: a vector for a product, else a count.
      whole: the operator is made anew by every call, and its graph counts too.

    Returns:
      The thunk, with a result laid out as ours.
    """
    torch.manual_seed(0)
    net = ResNet(variables, *normalization).to(
        memory_format=torch_peers.FORMATS[layout]
    )
    peer = PEERS[name](net, torch_peers.images(x, layout), torch.tensor(y).long())
    kept = None if whole else peer.make()
    if work == "product":
        v = net.tensors(args[0])

        def run() -> Vector:
            operator = peer.make() if kept is None else kept
            return net.vector(peer.product(operator, v))

        return run
    return lambda: getattr(peer, work)(peer.make() if kept is None else kept, *args)


def input_product(
    form: str, layout: str, params: Any, normalization: Any, beta: float, *args: Any
) -> Callable[[], np.ndarray]:
    """Make PyTorch's thunk for a Hessian-vector product at one image.

    What is compiled is compiled here, and raises here if PyTorch does not take it.

    Args:
      form: one of `FORMS`.
      layout: one of `torch_peers.FORMATS`.
      params: ours, of SqueezeNet.
      normalization: mean and standard deviation of the channels.
      beta: of the softplus.
      *args: images `[1, H, W, 3]`, their class, a direction, and how many products.

    Returns:
      The thunk, whose result is laid out as ours.
    """
    x, y, v, count = args
    act = lambda: nn.Softplus(beta=beta)  # noqa: E731
    net = torch_peers.SqueezeNet(params, act, *normalization)
    net = net.to(memory_format=torch_peers.FORMATS[layout])
    images, direction = (torch_peers.images(each, layout) for each in (x, v))
    label, classes = int(y[0]), torch.tensor(y).long()

    def forward_over_reverse(x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        gradient = torch.func.grad(lambda x: net(x)[0, label])
        return torch.func.jvp(gradient, (x,), (v,))[1]

    def double_backward(x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch_peers.hessian_vector_product(net, x, classes, v)

    eager = {"double backward": double_backward, "torch.func": forward_over_reverse}
    product = eager[form.removesuffix(COMPILED)]
    if form.endswith(COMPILED):
        product = torch.compile(product, fullgraph=True)
        product(images, direction)

    def run() -> np.ndarray:
        for _ in range(count):
            image = product(images, direction)
        return torch_peers.ours(image)

    return run
