"""Our networks against the same in PyTorch, whose files they are loaded from.

The PyTorch networks are written here, with the names of torchvision's and timm's files.
"""

import functools
import itertools

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import models
from protojax.models import densenet, layers, squeezenet

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize("depth", [18, 50])
def test_an_imagenet_resnet_computes_what_torchvisions_does(agree, depth, tmp_path):
    counts = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]
    theirs = ResNet(counts, 10, bottleneck=depth == 50)
    agree(models.ResNet(depth, 10), theirs, tmp_path, (64, 64), **IMAGENET)


@pytest.mark.parametrize("depth", [34, 101, 152])
def test_the_deeper_resnets_have_torchvisions_names_and_shapes(same_sizes, depth):
    counts = {34: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[depth]
    with torch.device("meta"):
        theirs = ResNet(counts, 1000, bottleneck=depth > 34)
    same_sizes(models.ResNet(depth), theirs)


def test_live_batch_norm_is_pytorchs_in_training(perturbed):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 5, 4, 3)).astype("float32")
    theirs = perturbed(nn.BatchNorm2d(3)).train()
    ours = layers.batch_norm("batch")(name="bn")
    variables = {
        "params": {"scale": theirs.weight, "bias": theirs.bias},
        "batch_stats": {"mean": theirs.running_mean, "var": theirs.running_var},
    }
    variables = jax.tree.map(lambda t: jnp.asarray(t.detach().numpy()), variables)

    @functools.partial(
        jax.vmap, in_axes=(None, 0), out_axes=(0, None), axis_name="batch"
    )
    def apply(variables, x):
        return ours.apply(variables, x, mutable=["batch_stats"])

    found, new = apply(variables, x)
    before = variables["batch_stats"]
    wanted = theirs(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, wanted.detach(), atol=1e-5)
    after = new["batch_stats"]
    np.testing.assert_allclose(after["mean"], theirs.running_mean, atol=1e-6)
    # PyTorch's running variance is unbiased: n / (n - 1) times as far, n = 6 * 5 * 4
    unbiased = 0.9 * before["var"] + (after["var"] - 0.9 * before["var"]) * 120 / 119
    np.testing.assert_allclose(unbiased, theirs.running_var, atol=1e-6)


@pytest.mark.parametrize("name", ["CifarResNet", "DenseNet"])
def test_a_network_of_live_batch_norms_changes_all_its_statistics(name, monkeypatch):
    monkeypatch.setitem(densenet.SIZES, 121, (4, 2, (1, 1, 1, 1)))
    live = {"CifarResNet": models.CifarResNet(8, 3), "DenseNet": models.DenseNet(121)}
    live = live[name].clone(batch_axis="batch")
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 32, 32, 3)), "float32")

    like = jax.eval_shape(live.init, jax.random.key(0), x[0])
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), like)
    apply = functools.partial(live.apply, mutable=["batch_stats"])
    batched = jax.vmap(apply, (None, 0), (0, None), axis_name="batch")
    logits, new = jax.jit(batched)(variables, x)
    assert np.isfinite(logits).all() and set(new) == {"batch_stats"}
    before, after = variables["batch_stats"], new["batch_stats"]
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, after)
    assert all(jax.tree.leaves(moved))


def test_a_cifar_resnet_computes_what_pytorchs_does(agree, tmp_path):
    agree(models.CifarResNet(14, 5), CifarResNet(2, 5), tmp_path, (32, 32), **IMAGENET)


@pytest.mark.parametrize("ceil_mode", [True, False])
def test_squeezenet_pools_as_pytorch_does_where_windows_are_left_over(
    agree, ceil_mode, tmp_path
):
    # sides of 33 and 37 pool to 16 and 18, which leave half a window over
    ours = models.SqueezeNet(7, ceil_mode=ceil_mode)
    theirs = SqueezeNet(7, ceil_mode=ceil_mode)
    agree(ours, theirs, tmp_path, (67, 75), **IMAGENET, names=squeezenet.NAMES)


def test_ceil_mode_matters_at_227_pixels_and_not_at_224():
    def sides(size, ceil_mode):
        model = models.SqueezeNet(2, ceil_mode=ceil_mode)
        x = jax.ShapeDtypeStruct((size, size, 3), jnp.float32)
        init = functools.partial(model.init, jax.random.key(0))
        jaxpr = jax.make_jaxpr(init)(x).jaxpr
        names = [eqn for eqn in jaxpr.eqns if str(eqn.primitive) == "name"]
        return [eqn.outvars[0].aval.shape[0] for eqn in names if "pool" in str(eqn)]

    assert sides(224, True) == sides(224, False) == [55, 27, 13]
    assert sides(227, True) == [56, 28, 14]
    assert sides(227, False) == [56, 27, 13]


def test_a_convnet_computes_what_pytorchs_does(agree, tmp_path):
    ours = models.ConvNet(classes=4, widths=(8, 16), groups=4)
    theirs = ConvNet((8, 16), 4, 4)
    agree(ours, theirs, tmp_path, (18, 21), mean=0.5, std=0.25)


def test_a_vision_transformer_computes_what_timms_does(agree, tmp_path):
    gelu = functools.partial(flax.linen.gelu, approximate=False)
    ours = models.VisionTransformer(5, patch=8, width=24, depth=2, heads=3, act=gelu)
    theirs = VisionTransformer(32, 8, 24, 2, 3, 5)
    agree(ours, theirs, tmp_path, (32, 32), mean=0.5, std=0.5)


class Block(nn.Module):
    def __init__(self, width_in, width, stride, *, bottleneck, option_a=False):
        super().__init__()
        self.option_a = option_a
        self.convs = 3 if bottleneck else 2
        out = 4 * width if bottleneck else width
        if bottleneck:
            shapes = [(width_in, width, 1, 1), (width, width, 3, stride)]
            shapes.append((width, out, 1, 1))
        else:
            shapes = [(width_in, width, 3, stride), (width, width, 3, 1)]
        for i, (a, b, size, step) in enumerate(shapes, 1):
            conv = nn.Conv2d(a, b, size, step, padding=size // 2, bias=False)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.downsample = None
        if not option_a and (stride > 1 or width_in != out):
            conv = nn.Conv2d(width_in, out, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(out))
        self.stride, self.out = stride, out

    def forward(self, x):
        h = x
        for i in range(1, self.convs + 1):
            h = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(h))
            h = torch.relu(h) if i < self.convs else h
        if self.option_a and self.stride > 1:
            side = (self.out - x.shape[1]) // 2
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, side))
        elif self.downsample is not None:
            x = self.downsample(x)
        return torch.relu(h + x)


class ResNet(nn.Module):
    def __init__(self, counts, classes, *, bottleneck):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        width_in = 64
        for stage, count in enumerate(counts):
            blocks = []
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                width = 64 * 2**stage
                blocks.append(Block(width_in, width, stride, bottleneck=bottleneck))
                width_in = blocks[-1].out
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(width_in, classes)

    def forward(self, x):
        h = torch.relu(self.bn1(self.conv1(x)))
        h = functional.max_pool2d(h, 3, 2, 1)
        h = self.layer4(self.layer3(self.layer2(self.layer1(h))))
        return self.fc(h.mean((2, 3)))


class CifarResNet(nn.Module):
    def __init__(self, n, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        width_in = 16
        for stage, width in enumerate((16, 32, 64)):
            blocks = []
            for i in range(n):
                stride = 2 if stage > 0 and i == 0 else 1
                block = Block(width_in, width, stride, bottleneck=False, option_a=True)
                blocks.append(block)
                width_in = width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, classes)

    def forward(self, x):
        h = torch.relu(self.bn1(self.conv1(x)))
        h = self.layer3(self.layer2(self.layer1(h)))
        return self.linear(h.mean((2, 3)))


class Fire(nn.Module):
    def __init__(self, width_in, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(width_in, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x):
        h = torch.relu(self.squeeze(x))
        return torch.relu(torch.cat([self.expand1x1(h), self.expand3x3(h)], dim=1))


class SqueezeNet(nn.Module):
    def __init__(self, classes, *, ceil_mode):
        super().__init__()
        pools = (nn.MaxPool2d(3, 2, ceil_mode=ceil_mode) for _ in range(3))
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 64, 3, 2), nn.ReLU(), next(pools)),
            *(Fire(64, 16, 64), Fire(128, 16, 64), next(pools)),
            *(Fire(128, 32, 128), Fire(256, 32, 128), next(pools)),
            *(Fire(256, 48, 192), Fire(384, 48, 192)),
            *(Fire(384, 64, 256), Fire(512, 64, 256)),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Conv2d(512, classes, 1), nn.ReLU()
        )

    def forward(self, x):
        return self.classifier(self.features(x)).mean((2, 3))


class ConvNet(nn.Module):
    def __init__(self, widths, groups, classes):
        super().__init__()
        self.stages = len(widths)
        for i, (a, b) in enumerate(itertools.pairwise((3, *widths)), 1):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, 3, 2, 1))
            # eps as in Flax, not PyTorch's 1e-5
            setattr(self, f"norm{i}", nn.GroupNorm(groups, b, eps=1e-6))
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x):
        h = x
        for i in range(1, self.stages + 1):
            h = torch.relu(getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(h)))
        return self.head(h.mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        n, t, width = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        h = functional.scaled_dot_product_attention(*qkv)
        return self.proj(h.transpose(1, 2).reshape(n, t, width))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(functional.gelu(self.fc1(x)))


class TransformerBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self, size, patch, width, depth, heads, classes):
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, patch, patch)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + (size // patch) ** 2, width))
        self.blocks = nn.Sequential(
            *(TransformerBlock(width, heads) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        h = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.cls_token.expand(len(x), -1, -1), h], dim=1)
        return self.head(self.norm(self.blocks(h + self.pos_embed))[:, 0])
