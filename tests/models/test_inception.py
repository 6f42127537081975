"""InceptionV1 against the same in PyTorch, written here with torchvision's names."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import activations, models
from protojax.models import inception, layers, pretrained

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional

IMAGENET = {"mean": layers.IMAGENET_MEAN, "std": layers.IMAGENET_STD}


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def test_inception_computes_what_torchvisions_does_on_normalized_images(
    agree, tmp_path, monkeypatch
):
    """Sides of 75 and 66 leave windows over in each pool of either kind."""
    monkeypatch.setattr(inception, "_WIDTHS", SMALL)
    theirs = GoogLeNet(SMALL, 5, transform_input=True)
    agree(models.InceptionV1(5), theirs, tmp_path, (75, 66), **IMAGENET)


def test_inception_has_torchvisions_names_and_shapes(same_sizes):
    with torch.device("meta"):
        theirs = GoogLeNet(inception._WIDTHS, 1000)
    same_sizes(models.InceptionV1(), theirs)


def test_auxiliary_heads_are_left_out_and_all_else_is_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(inception, "_WIDTHS", SMALL)
    weights = GoogLeNet(SMALL, 1000).state_dict()
    torch.save(
        weights
        | {"aux1.fc2.bias": torch.ones(1000), "aux2.conv.bn.bias": weights["fc.bias"]},
        tmp_path / "googlenet.pth",
    )
    _, variables = pretrained.inception_v1(tmp_path / "googlenet.pth")
    ours = variables["params"]["inception4b"]["branch3.1"]["conv"]["kernel"]
    theirs = weights["inception4b.branch3.1.conv.weight"]
    np.testing.assert_array_equal(ours, theirs.permute(2, 3, 1, 0))
    torch.save(weights | {"aux3.bias": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not fit InceptionV1:\n.*over: aux3"):
        pretrained.inception_v1(tmp_path / "other.pth")


def test_an_image_that_is_too_small_is_refused():
    init = models.InceptionV1(2).init
    small, least = (jnp.zeros((side, 40, 3)) for side in (14, 15))
    with pytest.raises(ValueError, match="`x` is 14x40 pixels; InceptionV1 needs 15x"):
        jax.eval_shape(init, jax.random.key(0), small)
    jax.eval_shape(init, jax.random.key(0), least)


def test_layers_bear_the_names_of_torchvisions_modules():
    x = jnp.zeros((32, 32, 3))
    like = jax.eval_shape(models.InceptionV1(3).init, jax.random.key(0), x)
    fill = functools.partial(jax.tree.map, lambda leaf: jnp.zeros(leaf.shape))
    found = activations.layers(
        functools.partial(models.InceptionV1(3).apply, fill(like)), x
    )
    blocks = [
        f"inception{s}{b}" for s, n in ((3, "ab"), (4, "abcde"), (5, "ab")) for b in n
    ]
    assert list(found) == ["conv1", "conv2", "conv3", *blocks, "pooled"]
    assert found["inception5b"].shape == (1, 1, 1024)


SMALL = {
    3: ((4, 3, 5, 2, 3, 2), (3, 2, 4, 2, 2, 3)),
    4: ((2, 3, 4, 1, 2, 3), (3, 2, 3, 2, 3, 1)),
    5: ((4, 2, 3, 2, 2, 4),),
}


class Conv(nn.Module):
    def __init__(self, width_in, width, size=1, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, size, stride, size // 2, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    def __init__(self, width_in, one, before3, three, before5, five, pool):
        super().__init__()
        self.branch1 = Conv(width_in, one)
        self.branch2 = nn.Sequential(Conv(width_in, before3), Conv(before3, three, 3))
        self.branch3 = nn.Sequential(Conv(width_in, before5), Conv(before5, five, 3))
        around = nn.MaxPool2d(3, 1, 1, ceil_mode=True)
        self.branch4 = nn.Sequential(around, Conv(width_in, pool))
        self.out = one + three + five + pool

    def forward(self, x):
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(x) for branch in branches], 1)


class GoogLeNet(nn.Module):
    def __init__(self, widths, classes, *, transform_input=False):
        super().__init__()
        self.transform_input = transform_input
        self.conv1 = Conv(3, 64, 7, 2)
        self.conv2 = Conv(64, 64)
        self.conv3 = Conv(64, 192, 3)
        width, self.stages = 192, {}
        for stage, blocks in widths.items():
            self.stages[stage] = []
            for letter, each in zip("abcde", blocks, strict=False):
                name = f"inception{stage}{letter}"
                setattr(self, name, Inception(width, *each))
                width = getattr(self, name).out
                self.stages[stage].append(name)
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        if self.transform_input:
            scaled = [
                x[:, c : c + 1] * (std / 0.5) + (mean - 0.5) / 0.5
                for c, (mean, std) in enumerate(zip(*IMAGENET.values(), strict=True))
            ]
            x = torch.cat(scaled, 1)
        h = functional.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True)
        h = self.conv3(self.conv2(h))
        for stage, names in self.stages.items():
            size = 2 if stage == 5 else 3
            h = functional.max_pool2d(h, size, 2, ceil_mode=True)
            for name in names:
                h = getattr(self, name)(h)
        return self.fc(h.mean((2, 3)))
