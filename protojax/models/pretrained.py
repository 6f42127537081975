"""Pretrained weights: from files with PyTorch's names into our `variables`.

Reads `.npz`, `.safetensors` and PyTorch's `.pth`, from the disk or the Hugging Face
hub, and runs no code that a file may hold. Our modules bear the names that torchvision
and timm gave theirs, so a network needs a map only where its own names are better.

    model, variables = pretrained.squeezenet1_1("imagenet_squeezenet1_1.npz")
    logits = model.apply(variables, x)
"""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from protojax import contracts
from protojax.models import (
    densenet,
    inception,
    mobilenet,
    resnet,
    squeezenet,
    vgg,
    vit,
    weightfiles,
)

PyTree = contracts.PyTree
Path = weightfiles.Path
read = weightfiles.read


def squeezenet1_1(path: Path) -> tuple[squeezenet.SqueezeNet, PyTree]:
    """SqueezeNet 1.1 with torchvision's weights.

    Args:
      path: as in `load`.

    Returns:
      The model, for 224 pixels, and its variables.

    >>> squeezenet1_1("missing.npz")
    Traceback (most recent call last):
    ...
    FileNotFoundError: there is no weight file missing.npz
    """
    model = squeezenet.SqueezeNet()
    return model, load(path, model, image_size=224, names=squeezenet.NAMES)


def mobilenet_v2(path: Path) -> tuple[mobilenet.MobileNetV2, PyTree]:
    """MobileNetV2 1.0 with batch norms folded into the convolutions.

    Args:
      path: as in `load`.

    Returns:
      The model, for 224 pixels, and its variables.

    >>> mobilenet_v2("missing.npz")
    Traceback (most recent call last):
    ...
    FileNotFoundError: there is no weight file missing.npz
    """
    model = mobilenet.MobileNetV2()
    return model, load(path, model, image_size=224)


def mobilenet_v1_025(path: Path) -> tuple[mobilenet.MobileNetV1, PyTree]:
    """MobileNetV1 0.25 with batch norms folded into the convolutions.

    Args:
      path: as in `load`.

    Returns:
      The model, for 128 pixels (resize the image first), and its variables.

    >>> mobilenet_v1_025("missing.npz")
    Traceback (most recent call last):
    ...
    FileNotFoundError: there is no weight file missing.npz
    """
    model = mobilenet.MobileNetV1(alpha=0.25)
    return model, load(path, model, image_size=128)


def cifar10_resnet(path: Path, *, depth: int) -> tuple[resnet.CifarResNet, PyTree]:
    """A CIFAR-10 ResNet (option A).

    Args:
      path: as in `load`.
      depth: 20, 32, 44, 56, 110, ...

    Returns:
      The model, for 32 pixels, and its variables.

    >>> cifar10_resnet("missing.npz", depth=20)
    Traceback (most recent call last):
    ...
    FileNotFoundError: there is no weight file missing.npz
    """
    model = resnet.CifarResNet(depth)
    return model, load(path, model, image_size=32)


def imagenet_resnet(path: Path, *, depth: int) -> tuple[resnet.ResNet, PyTree]:
    """An ImageNet ResNet with torchvision's (or timm's) weights.

    Args:
      path: as in `load`.
      depth: 18, 34, 50, 101 or 152.

    Returns:
      The model, for 224 pixels, and its variables.

    >>> imagenet_resnet("missing.pth", depth=50)
    Traceback (most recent call last):
    ...
    FileNotFoundError: there is no weight file missing.pth
    """
    model = resnet.ResNet(depth)
    return model, load(path, model, image_size=224)


def imagenet_vgg(
    path: Path, *, depth: int, norm: bool = False
) -> tuple[vgg.VGG, PyTree]:
    """A VGG network with torchvision's weights.

    Args:
      path: as in `load`.
      depth: 11, 13, 16 or 19.
      norm: whether it is one of those with batch norm.

    Returns:
      The model, for 224 pixels, and its variables.

    >>> imagenet_vgg("missing.pth", depth=19)
    Traceback (most recent call last):
    ...
    FileNotFoundError: there is no weight file missing.pth
    """
    model = vgg.VGG(depth, norm)
    return model, load(path, model, image_size=224)


def imagenet_densenet(path: Path, *, depth: int) -> tuple[densenet.DenseNet, PyTree]:
    """A DenseNet with torchvision's weights, under the names of any of its versions.

    Args:
      path: as in `load`.
      depth: 121, 161, 169 or 201.

    Returns:
      The model, for 224 pixels, and its variables.

    >>> imagenet_densenet("missing.pth", depth=121)
    Traceback (most recent call last):
    ...
    FileNotFoundError: there is no weight file missing.pth
    """
    model = densenet.DenseNet(depth)
    return model, load(path, model, image_size=224, rename=densenet.modern_name)


def inception_v1(path: Path) -> tuple[inception.InceptionV1, PyTree]:
    """InceptionV1 with torchvision's weights (`googlenet`), auxiliary heads left out.

    Args:
      path: as in `load`.

    Returns:
      The model, for 224 pixels, and its variables.

    >>> inception_v1("missing.pth")
    Traceback (most recent call last):
    ...
    FileNotFoundError: there is no weight file missing.pth
    """
    model = inception.InceptionV1()

    def main_path(name: str) -> str | None:
        return None if name.startswith(("aux1.", "aux2.")) else name

    return model, load(path, model, image_size=224, rename=main_path)


def vit_tiny(path: Path) -> tuple[vit.VisionTransformer, PyTree]:
    """The tiny vision transformer with timm's weights (`vit_tiny_patch16_224`).

    Args:
      path: as in `load`.

    Returns:
      The model, for 224 pixels alone, and its variables.

    >>> vit_tiny("missing.safetensors")
    Traceback (most recent call last):
    ...
    FileNotFoundError: there is no weight file missing.safetensors
    """
    gelu = functools.partial(nn.gelu, approximate=False)
    model = vit.VisionTransformer(
        classes=1000, patch=16, width=192, depth=12, heads=3, act=gelu
    )
    return model, load(path, model, image_size=224)


def load(
    path: Path,
    model: nn.Module,
    *,
    image_size: int,
    names: Mapping[str, str] | None = None,
    rename: Callable[[str], str | None] | None = None,
) -> PyTree:
    """Put the weights of a file into the variables of a model.

    Kernels change their layout: convolutions from (out, in, height, width) to (height,
    width, in, out), dense ones from (out, in) to (in, out).

    Args:
      path: a file `.npz`, `.safetensors` or `.pth` (also `.pt`, `.bin`), or
        `hf:OWNER/REPOSITORY/FILE` on the Hugging Face hub.
      model: a Linen module of one image.
      image_size: side of the images, on which position embeddings depend, and dense
        layers on a map that is not pooled to one size.
      names: outermost module of ours -> its name in the file, where they differ.
      rename: an array's name in the file -> the name that it is meant by, None for
        what is for training alone; for files that were written under older names.

    Returns:
      `{"params": ...}`, with frozen statistics under `"batch_stats"`, float32.

    Raises:
      FileNotFoundError: if there is no such file, or no network to fetch it by.
      ImportError: if the file needs a package that is not installed.
      ValueError: if the file cannot be read or does not fit: the message names every
        array that is missing, left over or of another shape, or that `rename` gives the
        name of another.

    >>> import os, tempfile
    >>> from protojax.models import convnet
    >>> model = convnet.ConvNet(classes=2, widths=(8,), groups=None)
    >>> path = os.path.join(tempfile.mkdtemp(), "weights.npz")
    >>> np.savez(path, **{"conv1.weight": np.ones((8, 3, 3, 3))})
    >>> load(path, model, image_size=32)
    Traceback (most recent call last):
    ...
    ValueError: weights.npz does not fit ConvNet:
      missing: conv1.bias, head.bias, head.weight
    """
    arrays, file = read(path), pathlib.Path(path).name
    if rename is not None:
        arrays = _renamed(arrays, rename, file)
    example = jax.ShapeDtypeStruct((image_size, image_size, 3), jnp.float32)
    like = jax.eval_shape(model.init, jax.random.key(0), example)
    leaves, structure = jax.tree.flatten_with_path(like)
    wanted = [
        (_name(keys, names or {}), _kind(keys), leaf.shape) for keys, leaf in leaves
    ]
    _check(wanted, arrays, f"{file} does not fit {type(model).__name__}:")
    ours = [_to_ours(arrays[name], kind) for name, kind, _ in wanted]
    return jax.tree.unflatten(structure, [jnp.asarray(a, jnp.float32) for a in ours])


def _renamed(
    arrays: Mapping[str, np.ndarray], rename: Callable[[str], str | None], file: str
) -> dict[str, np.ndarray]:
    meant: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        new = rename(name)
        if new in meant:
            raise ValueError(
                f"{file} has two arrays that `rename` calls {new}, {name} the second: "
                "give each its own name, or None"
            )
        if new is not None:
            meant[new] = array
    return meant


_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


def _kind(keys: tuple[Any, ...]) -> str:
    return keys[-1].key


def _name(keys: tuple[Any, ...], names: Mapping[str, str]) -> str:
    """("params", "layer1.0", "conv1", "kernel") -> "layer1.0.conv1.weight"."""
    *modules, leaf = (key.key for key in keys[1:])
    if modules:
        modules[0] = names.get(modules[0], modules[0])
    return ".".join([*modules, _LEAVES.get(leaf, leaf)])


def _check(
    wanted: list[tuple[str, str, tuple[int, ...]]],
    arrays: Mapping[str, np.ndarray],
    title: str,
) -> None:
    expected = {name for name, _, _ in wanted}
    wrong = [
        f"{name} is {found}, not {shape}"
        for name, kind, shape in wanted
        if name in arrays and (found := _to_ours(arrays[name], kind).shape) != shape
    ]
    faults = {
        "missing": sorted(expected - set(arrays)),
        "left over": sorted(set(arrays) - expected),
        "other shape (in our layout)": wrong,
    }
    if any(faults.values()):
        lines = [
            f"  {fault}: {', '.join(found)}" for fault, found in faults.items() if found
        ]
        raise ValueError("\n".join([title, *lines]))


def _to_ours(array: np.ndarray, kind: str) -> np.ndarray:
    if kind == "kernel" and array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if kind == "kernel" else array
