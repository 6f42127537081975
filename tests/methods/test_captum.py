"""Our attributions against Captum's, on networks with the same weights.

The PyTorch networks have one module for each use of an activation, as Captum's DeepLIFT
needs. Where max pooling meets a ReLU, Captum's parts do not add up to the difference
that its network makes, so that they are compared without the one or the other.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import activations, attributions
from protojax.models import pretrained

torch = pytest.importorskip("torch")
captum = pytest.importorskip("captum.attr")
nn = torch.nn

pytestmark = pytest.mark.filterwarnings("ignore")


class Small(nn.Module):
    def __init__(self, pool=nn.MaxPool2d):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool = pool(2)
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2)
        self.relu2 = nn.ReLU()
        self.average = nn.AvgPool2d(2)
        self.dense = nn.Linear(32, 10)
        self.relu3 = nn.ReLU()
        self.head = nn.Linear(10, 4)

    def forward(self, x):
        h = self.relu1(self.pool(self.conv1(x)))
        h = self.average(self.relu2(self.conv2(h)))
        return self.head(self.relu3(self.dense(h.flatten(1))))


def numpy(tensor):
    return jnp.asarray(tensor.detach().numpy())


def convolve(x, module, stride, padding):
    h = jax.lax.conv_general_dilated(
        x[None],
        numpy(module.weight),
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
    )[0]
    return h if module.bias is None else h + numpy(module.bias).reshape(1, 1, -1)


def maximum(h):
    size = (2, 2, 1)
    return jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, size, size, "VALID")


def average(h):
    size = (2, 2, 1)
    return jax.lax.reduce_window(h, 0.0, jax.lax.add, size, size, "VALID") / 4


def small(theirs):
    def fn(x):
        h = convolve(x, theirs.conv1, 1, "SAME")
        h = maximum(h) if isinstance(theirs.pool, nn.MaxPool2d) else average(h)
        h = jax.nn.relu(convolve(jax.nn.relu(h), theirs.conv2, 2, "VALID"))
        h = average(h).transpose(2, 0, 1).ravel()
        h = numpy(theirs.dense.weight) @ h + numpy(theirs.dense.bias)
        return numpy(theirs.head.weight) @ jax.nn.relu(h) + numpy(theirs.head.bias)

    return fn


class Twin:
    """One image through both networks."""

    def __init__(self, theirs, fn, x, y, baseline):
        self.theirs, self.x, self.y, self.baseline = theirs, x, y, baseline
        self.score = lambda z: fn(z)[y]

    def ours(self, method, **knobs):
        return jax.jit(functools.partial(method, self.score, **knobs))(self.x)

    def captum(self, explainer, **knobs):
        x = torch.tensor(np.asarray(self.x).transpose(2, 0, 1)[None])
        if "baselines" in knobs:
            b = np.asarray(self.baseline).transpose(2, 0, 1)[None]
            knobs["baselines"] = torch.tensor(b)
        found = explainer.attribute(x, target=self.y, **knobs)
        return found[0].detach().numpy().transpose(1, 2, 0)


def agree(ours, theirs):
    size = np.abs(theirs).max()
    assert size > 0
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * size, rtol=0)


def twins(theirs, ours, y=2):
    x, baseline = (jax.random.uniform(jax.random.key(k), (18, 18, 3)) for k in (0, 1))
    return Twin(theirs.eval(), ours(theirs), x, y, baseline)


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    return twins(Small(), small)


def test_the_gradient_agrees_with_captum(pair):
    found = pair.captum(captum.Saliency(pair.theirs), abs=False)
    agree(pair.ours(attributions.gradient), found)


def test_input_x_gradient_agrees_with_captum(pair):
    agree(
        pair.ours(attributions.input_x_gradient),
        pair.captum(captum.InputXGradient(pair.theirs)),
    )


@pytest.mark.parametrize(
    ("rule", "method"),
    [
        ("right", "riemann_right"),
        ("midpoint", "riemann_middle"),
        ("left", "riemann_left"),
        ("gauss_legendre", "gausslegendre"),
    ],
)
def test_integrated_gradients_agree_with_captum(pair, rule, method):
    rule = getattr(attributions, rule)
    found = pair.ours(
        attributions.integrated_gradients,
        baseline=pair.baseline,
        steps=20,
        rule=rule,
    )
    theirs = captum.IntegratedGradients(pair.theirs)
    agree(found, pair.captum(theirs, baselines=True, n_steps=20, method=method))


def test_deep_lift_agrees_with_captum_on_activations():
    torch.manual_seed(0)
    pair = twins(Small(nn.AvgPool2d), small)
    found = pair.ours(attributions.deep_lift, baseline=pair.baseline)
    agree(found, pair.captum(captum.DeepLift(pair.theirs), baselines=True))


def test_deep_lift_agrees_with_captum_on_max_pooling():
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.Conv2d(3, 6, 3), nn.MaxPool2d(2), nn.Flatten())

    def ours(theirs):
        return lambda x: maximum(convolve(x, theirs[0], 1, "VALID")).reshape(-1)

    # the score is a unit of the last channel, where both orders of axes end alike
    pair = twins(theirs, ours, y=6 * 8 * 8 - 1)
    found = pair.ours(attributions.deep_lift, baseline=pair.baseline)
    agree(found, pair.captum(captum.DeepLift(pair.theirs), baselines=True))


def test_guided_backpropagation_agrees_with_captum(pair):
    found = pair.captum(captum.GuidedBackprop(pair.theirs))
    agree(pair.ours(attributions.guided_gradient), found)


def test_relevance_agrees_with_captum(pair):
    found = pair.ours(attributions.lrp, rule=activations.epsilon(1e-9))
    theirs = captum.LRP(pair.theirs)
    agree(found, pair.captum(theirs))


def test_grad_cam_agrees_with_captum(pair):
    theirs = captum.LayerGradCam(pair.theirs, pair.theirs.conv2)
    found = pair.ours(attributions.class_activation, layer="conv:1")
    agree(found[..., None], pair.captum(theirs))
    theirs = captum.GuidedGradCam(pair.theirs, pair.theirs.conv1)
    found = pair.ours(attributions.guided_grad_cam, layer="conv:0")
    agree(found, pair.captum(theirs))


def test_conductance_agrees_with_captum(pair):
    theirs = captum.LayerConductance(pair.theirs, pair.theirs.relu2)
    found = pair.ours(
        attributions.conductance, layer="relu:1", baseline=pair.baseline, steps=1000
    )
    wanted = pair.captum(theirs, baselines=True, n_steps=1000)
    size = np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, atol=5e-3 * size)  # theirs: differences


class Block(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.stride = out // width
        self.conv1 = nn.Conv2d(width, out, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu2 = nn.ReLU()

    def forward(self, x):
        h = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.stride == 2:
            quarter = h.shape[1] // 4
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
        return self.relu2(h + x)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(16), nn.ReLU()
        widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        blocks = [Block(*pair) for pair in zip(widths[:-1], widths[1:], strict=True)]
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*blocks[3 * i : 3 * i + 3]) for i in range(3)
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        mean, std = (
            torch.tensor(v, dtype=x.dtype).reshape(1, 3, 1, 1)
            for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        h = self.relu(self.bn1(self.conv1((x - mean) / std)))
        h = self.layer3(self.layer2(self.layer1(h)))
        return self.linear(h.mean((2, 3)))


@pytest.fixture(scope="module")
def resnet(data_folder):
    path = data_folder / "cifar10_resnet20.npz"
    model, weights = pretrained.cifar10_resnet(path, depth=20)
    theirs = ResNet20().eval()
    arrays = {k: torch.tensor(v) for k, v in np.load(path).items() if v.dtype == "f4"}
    missing, extra = theirs.load_state_dict(arrays, strict=False)
    assert not extra and all("num_batches" in name for name in missing)
    x = jnp.asarray(np.load(data_folder / "cifar10.npz")["x_test"][0], "float32") / 255
    fn = functools.partial(model.apply, weights)
    return Twin(theirs, fn, x, int(fn(x).argmax()), jnp.full_like(x, 0.5))


@pytest.mark.realdata
@pytest.mark.slow
def test_a_trained_resnet_agrees_with_captum(resnet):
    found = resnet.ours(attributions.deep_lift, baseline=resnet.baseline)
    agree(found, resnet.captum(captum.DeepLift(resnet.theirs), baselines=True))
    found = resnet.ours(attributions.guided_gradient)
    agree(found, resnet.captum(captum.GuidedBackprop(resnet.theirs)))
    found = resnet.ours(attributions.input_x_gradient)
    agree(found, resnet.captum(captum.InputXGradient(resnet.theirs)))


class Fire(nn.Module):
    def __init__(self, width, squeezed, out):
        super().__init__()
        self.squeeze = nn.Conv2d(width, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, out, 1)
        self.expand3x3 = nn.Conv2d(squeezed, out, 3, padding=1)
        self.a, self.b, self.c = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x):
        h = self.a(self.squeeze(x))
        return torch.cat([self.b(self.expand1x1(h)), self.c(self.expand3x3(h))], 1)


class SqueezeNet(nn.Module):
    def __init__(self):
        super().__init__()
        parts = [nn.Conv2d(3, 64, 3, 2), nn.ReLU(), None]
        parts += [Fire(64, 16, 64), Fire(128, 16, 64), None]
        parts += [Fire(128, 32, 128), Fire(256, 32, 128), None]
        parts += [Fire(256, 48, 192), Fire(384, 48, 192)]
        parts += [Fire(384, 64, 256), Fire(512, 64, 256)]
        self.features = nn.Sequential(
            *(part or nn.MaxPool2d(3, 2, ceil_mode=True) for part in parts)
        )
        self.classifier = nn.Sequential(
            nn.Identity(), nn.Conv2d(512, 1000, 1), nn.ReLU()
        )

    def forward(self, x):
        mean, std = (
            torch.tensor(v, dtype=x.dtype).reshape(1, 3, 1, 1)
            for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        return self.classifier(self.features((x - mean) / std)).mean((2, 3))


@pytest.mark.realdata
@pytest.mark.slow
def test_squeezenet_agrees_with_captum(data_folder):
    # 64 bits: a ReLU at rounding's distance from zero must not open in one of two
    with jax.enable_x64(True):
        squeezenet_agrees(data_folder)


def squeezenet_agrees(data_folder):
    path = data_folder / "imagenet_squeezenet1_1.npz"
    model, weights = pretrained.squeezenet1_1(path)
    theirs = SqueezeNet().eval()
    arrays = {k: torch.tensor(v) for k, v in np.load(path).items() if v.dtype == "f4"}
    theirs.load_state_dict(arrays)
    theirs.double()
    images = np.load(data_folder / "imagenet_samples_224.npz")["images"]
    x = jnp.asarray(images[3], "float64") / 255
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, "float64"), weights)
    fn = functools.partial(model.apply, wide)
    twin = Twin(theirs, fn, x, int(fn(x).argmax()), jnp.full_like(x, 0.45))
    agree(
        twin.ours(attributions.gradient),
        twin.captum(captum.Saliency(theirs), abs=False),
    )
    agree(
        twin.ours(attributions.guided_gradient),
        twin.captum(captum.GuidedBackprop(theirs)),
    )
    found = twin.ours(
        attributions.integrated_gradients,
        baseline=twin.baseline,
        steps=4,
        rule=attributions.right,
    )
    wanted = twin.captum(
        captum.IntegratedGradients(theirs),
        baselines=True,
        n_steps=4,
        method="riemann_right",
    )
    agree(found, wanted)
    cam = captum.LayerGradCam(theirs, theirs.features[-1])
    found = twin.ours(attributions.class_activation, layer="fire9")
    agree(found[..., None], twin.captum(cam))
