"""VGGs and DenseNets against the same in PyTorch, whose files they are loaded from."""

import functools
import re

import numpy as np
import pytest

from protojax import models
from protojax.models import densenet, pretrained

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize(
    ("depth", "norm"),
    [(11, True), pytest.param(16, False, marks=pytest.mark.slow)],
)
def test_a_vgg_computes_what_torchvisions_does(agree, depth, norm, tmp_path):
    # 96 x 224 pixels leave 3 x 7, which is pooled to 7 x 7: windows overlap
    ours = models.VGG(depth, norm, classes=10, hidden=16)
    theirs = VGG(VGG_COUNTS[depth], norm, 16, 10)
    agree(ours, theirs, tmp_path, (96, 224), **IMAGENET)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_all_vggs_have_torchvisions_names_and_shapes(same_sizes, depth, norm):
    with torch.device("meta"):
        theirs = VGG(VGG_COUNTS[depth], norm, 4096, 1000)
    same_sizes(models.VGG(depth, norm), theirs)


@pytest.mark.parametrize(
    "depth",
    [7, pytest.param(121, marks=pytest.mark.slow)],
)
def test_a_densenet_computes_what_torchvisions_does(
    agree, depth, tmp_path, monkeypatch
):
    monkeypatch.setitem(densenet.SIZES, 7, (8, 4, (2, 1, 1, 2)))  # quickly compiled
    ours, theirs = models.DenseNet(depth, 10), DenseNet(densenet.SIZES[depth], 10)
    agree(ours, theirs, tmp_path, (64, 75), **IMAGENET)


@pytest.mark.parametrize(
    "depth", [121, *(pytest.param(d, marks=pytest.mark.slow) for d in (161, 169, 201))]
)
def test_all_densenets_have_torchvisions_names_and_shapes(same_sizes, depth):
    with torch.device("meta"):
        theirs = DenseNet(densenet.SIZES[depth], 1000)
    same_sizes(models.DenseNet(depth), theirs)


def test_a_densenet_is_read_under_the_names_of_torchvisions_older_files(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(densenet.SIZES, 121, (4, 2, (1, 1, 1, 2)))
    older = functools.partial(re.sub, r"(norm|conv)(\d\.\w+)$", r"\1.\2")
    weights = {
        older(name) if "denselayer" in name else name: value
        for name, value in DenseNet(densenet.SIZES[121], 1000).state_dict().items()
    }
    assert "features.denseblock4.denselayer2.conv.1.weight" in weights
    torch.save(weights, tmp_path / "old.pth")
    _, variables = pretrained.imagenet_densenet(tmp_path / "old.pth", depth=121)
    ours = variables["params"]["features.denseblock4.denselayer2"]["conv1"]["kernel"]
    theirs = weights["features.denseblock4.denselayer2.conv.1.weight"]
    np.testing.assert_array_equal(ours, theirs.permute(2, 3, 1, 0))
    del weights["features.norm0.bias"]
    torch.save(weights | {"more": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="missing: features.norm0.bias\n.*: more"):
        pretrained.imagenet_densenet(tmp_path / "other.pth", depth=121)


def test_a_vgg_with_batch_norm_does_not_take_the_weights_of_one_without(tmp_path):
    torch.save({"features.0.weight": torch.ones(64, 3, 3, 3)}, tmp_path / "vgg.pth")
    with pytest.raises(
        ValueError, match="does not fit VGG:\n.*features.1.running_mean"
    ):
        pretrained.imagenet_vgg(tmp_path / "vgg.pth", depth=11, norm=True)


VGG_COUNTS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGG(nn.Module):
    def __init__(self, counts, norm, hidden, classes):
        super().__init__()
        width, features = 3, []
        for count, new in zip(counts, (64, 128, 256, 512, 512)):
            for _ in range(count):
                norms = [nn.BatchNorm2d(new)] if norm else []
                features += [nn.Conv2d(width, new, 3, padding=1), *norms, nn.ReLU()]
                width = new
            features.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(
            *(nn.Linear(512 * 7 * 7, hidden), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout()),
            nn.Linear(hidden, classes),
        )

    def forward(self, x):
        h = functional.adaptive_avg_pool2d(self.features(x), 7)
        return self.classifier(h.flatten(1))


class DenseLayer(nn.Module):
    def __init__(self, width, growth):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x):
        h = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(h)))], 1)


class Transition(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, width // 2, 1, bias=False)

    def forward(self, x):
        return functional.avg_pool2d(self.conv(torch.relu(self.norm(x))), 2)


class DenseNet(nn.Module):
    def __init__(self, size, classes):
        super().__init__()
        width, growth, counts = size
        self.features = nn.Sequential()
        add = self.features.add_module
        add("conv0", nn.Conv2d(3, width, 7, 2, 3, bias=False))
        add("norm0", nn.BatchNorm2d(width))
        add("relu0", nn.ReLU())
        add("pool0", nn.MaxPool2d(3, 2, 1))
        for i, count in enumerate(counts, 1):
            block = nn.Sequential()
            for k in range(count):
                layer = DenseLayer(width + k * growth, growth)
                block.add_module(f"denselayer{k + 1}", layer)
            add(f"denseblock{i}", block)
            width += count * growth
            if i < len(counts):
                add(f"transition{i}", Transition(width))
                width //= 2
        add("norm5", nn.BatchNorm2d(width))
        self.classifier = nn.Linear(width, classes)

    def forward(self, x):
        return self.classifier(torch.relu(self.features(x)).mean((2, 3)))
