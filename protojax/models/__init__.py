"""Models: Flax (Linen) networks and pretrained weights. The only import of Flax.

Every network is a module that takes **one** image `[H, W, C]`, float32 in [0, 1], and
returns logits `[K]`; its own normalization is inside. Its non-linearity is the field
`act`, so the same variables serve another one: `model.clone(act=jax.nn.softplus)`. Its
layers are named by `jax.ad_checkpoint.checkpoint_name`. What is no classifier takes
what one makes of an image: a `PrototypeHead` a feature map, a decoder the code of a
layer, an explanation network its units.

>>> import jax
>>> from protojax import models
>>> model = models.ConvNet(classes=3)
>>> x = jax.numpy.zeros((32, 32, 3))
>>> variables = jax.jit(model.init)(jax.random.key(0), x)
>>> jax.jit(model.apply)(variables, x).shape
(3,)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; nothing is loaded
    from protojax.models import (
        convnet as convnet,
        decoder as decoder,
        densenet as densenet,
        inception as inception,
        layers as layers,
        mobilenet as mobilenet,
        pretrained as pretrained,
        protopnet as protopnet,
        resnet as resnet,
        squeezenet as squeezenet,
        torchfile as torchfile,
        vgg as vgg,
        vit as vit,
        weightfiles as weightfiles,
        xnn as xnn,
    )
    from protojax.models.convnet import (
        CifarCNN as CifarCNN,
        ConvNet as ConvNet,
        SmallClassifier as SmallClassifier,
        StridedVGG as StridedVGG,
    )
    from protojax.models.decoder import (
        Decoder as Decoder,
        SmallDecoder as SmallDecoder,
    )
    from protojax.models.densenet import DenseNet as DenseNet
    from protojax.models.inception import InceptionV1 as InceptionV1
    from protojax.models.mobilenet import (
        MobileNetV1 as MobileNetV1,
        MobileNetV2 as MobileNetV2,
    )
    from protojax.models.protopnet import PrototypeHead as PrototypeHead
    from protojax.models.resnet import (
        CifarResNet as CifarResNet,
        ResNet as ResNet,
    )
    from protojax.models.squeezenet import SqueezeNet as SqueezeNet
    from protojax.models.vgg import VGG as VGG
    from protojax.models.vit import VisionTransformer as VisionTransformer
    from protojax.models.xnn import (
        XNN as XNN,
        ConvolutionalXNN as ConvolutionalXNN,
    )

_MODULES = {
    "convnet",  # small networks to train yourself
    "resnet",  # residual networks for CIFAR and ImageNet
    "vgg",  # VGG, with and without batch norm
    "densenet",  # densely connected networks
    "inception",  # InceptionV1, that is GoogLeNet
    "squeezenet",  # SqueezeNet 1.1
    "mobilenet",  # MobileNet V1 and V2
    "vit",  # vision transformer
    "protopnet",  # a head of prototypes on any of them
    "decoder",  # from the code of a layer back to an image
    "xnn",  # explanation networks on the units of a layer
    "layers",  # what they share
    "pretrained",  # weights from .npz, .safetensors and PyTorch files
    "weightfiles",  # any of these files as arrays
    "torchfile",  # PyTorch's files, read without PyTorch and without running code
}
_NETWORKS = {
    "ConvNet": "convnet",
    "CifarCNN": "convnet",
    "SmallClassifier": "convnet",
    "StridedVGG": "convnet",
    "CifarResNet": "resnet",
    "ResNet": "resnet",
    "VGG": "vgg",
    "DenseNet": "densenet",
    "InceptionV1": "inception",
    "SqueezeNet": "squeezenet",
    "MobileNetV1": "mobilenet",
    "MobileNetV2": "mobilenet",
    "VisionTransformer": "vit",
    "PrototypeHead": "protopnet",
    "Decoder": "decoder",
    "SmallDecoder": "decoder",
    "XNN": "xnn",
    "ConvolutionalXNN": "xnn",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _NETWORKS:
        return getattr(__getattr__(_NETWORKS[name]), name)
    raise AttributeError(f"module 'protojax.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_NETWORKS})
