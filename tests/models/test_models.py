"""What every network keeps to: one image in, logits out, `act` free to swap."""

import ast
import inspect
import math
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax import models

NETWORKS = {
    "ConvNet": (lambda: models.ConvNet(classes=3, widths=(8, 8)), 16, ["stage1"]),
    "CifarCNN": (lambda: models.CifarCNN(classes=3), 8, ["conv1", "conv6", "dense"]),
    "SmallClassifier": (
        lambda: models.SmallClassifier(classes=3),
        8,
        ["conv", "dense"],
    ),
    "CifarResNet": (
        lambda: models.CifarResNet(depth=8, classes=3),
        16,
        ["conv1", "layer1.0", "layer3.0"],
    ),
    "ResNet": (
        lambda: models.ResNet(depth=18, classes=3),
        32,
        ["conv1", "layer1.0", "layer4.1", "pooled"],
    ),
    "VGG": (
        lambda: models.VGG(depth=11, classes=3, hidden=8),
        32,
        ["features.0", "pool1", "features.18", "pool5", "classifier.3"],
    ),
    "StridedVGG": (
        lambda: models.StridedVGG(classes=3),
        32,
        [f"conv{i}" for i in ("0", "1", "2a", "2", "3a", "3", "4a", "4")] + ["flat"],
    ),
    "SqueezeNet": (
        lambda: models.SqueezeNet(classes=3),
        34,
        ["conv1", "pool1", "fire2", "pool3", "fire4", "pool5", "fire9", "conv10"],
    ),
    "MobileNetV1": (
        lambda: models.MobileNetV1(classes=3),
        32,
        ["stem", "blocks.0", "blocks.12"],
    ),
    "MobileNetV2": (
        lambda: models.MobileNetV2(classes=3, alpha=0.35),
        32,
        ["stem", "blocks.0", "blocks.16", "head"],
    ),
    "VisionTransformer": (
        lambda: models.VisionTransformer(classes=3, width=16),
        16,
        ["patch_embed", "blocks.0", "blocks.1", "norm"],
    ),
}


def filled(model, size):
    """Random variables of the right sizes, without compiling an initialization."""
    example = jax.ShapeDtypeStruct((size, size, 3), jnp.float32)
    like = jax.eval_shape(model.init, jax.random.key(0), example)
    draw = np.random.default_rng(0)

    def fill(path, leaf):
        kind = path[-1].key
        if kind in ("scale", "var"):
            return draw.uniform(0.5, 1.5, leaf.shape).astype("float32")
        spread = math.sqrt(2 / math.prod(leaf.shape[:-1])) if kind == "kernel" else 0.1
        return (spread * draw.normal(size=leaf.shape)).astype("float32")

    return jax.tree.map_with_path(fill, like)


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    make, size, names = NETWORKS[request.param]
    model = make()
    images = np.random.default_rng(1).uniform(size=(2, size, size, 3))
    return model, filled(model, size), jnp.asarray(images, "float32"), names


def test_one_image_alone_or_in_a_batch_another_act_and_its_gradient(network):
    model, variables, images, _ = network
    smooth = model.clone(act=jax.nn.softplus)

    @jax.jit  # all at once, as compiling takes most of the time
    def outputs(variables, images):
        batch = jax.vmap(model.apply, in_axes=(None, 0))(variables, images)
        logit = jax.value_and_grad(lambda x: smooth.apply(variables, x)[0])
        return batch, model.apply(variables, images[1]), *logit(images[1])

    batch, alone, value, gradient = outputs(variables, images)
    assert batch.shape == (2, 3)
    assert np.all(np.isfinite(batch))
    np.testing.assert_allclose(alone, batch[1], rtol=1e-4, atol=1e-5)
    assert np.isfinite(value)
    assert value != alone[0]
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient != 0)


def test_layers_are_named_in_the_traced_function(network):
    model, variables, images, names = network
    traced = str(jax.make_jaxpr(model.apply)(variables, images[0]))
    assert set(names) <= set(re.findall(r"name\[name=([\w.]+)\]", traced))


def test_a_batch_or_integers_are_refused_at_the_door(network):
    model, variables, images, _ = network
    with pytest.raises(ValueError, match="`x` has shape .*jax.vmap"):
        model.apply(variables, images)
    with pytest.raises(AssertionError, match="type"):
        model.apply(variables, jnp.zeros(images.shape[1:], jnp.uint8))


@pytest.mark.parametrize("name", ["SqueezeNet", "ResNet", "VGG", "MobileNetV2"])
def test_an_image_of_other_channels_is_refused_by_the_ported_networks(name):
    make, size, _ = NETWORKS[name]
    with pytest.raises(AssertionError, match="dimension"):
        jax.eval_shape(make().init, jax.random.key(0), jnp.zeros((size, size, 1)))


@pytest.mark.parametrize(
    ("name", "least"),
    [("DenseNet", 29), ("SqueezeNet", 31), ("VGG", 32), ("SmallClassifier", 4)],
)
def test_an_image_that_would_leave_a_layer_empty_is_refused(name, least):
    init = getattr(models, name)(classes=2).init
    with pytest.raises(ValueError, match=f"`x` is 40x{least - 1} pixels; {name} needs"):
        jax.eval_shape(init, jax.random.key(0), jnp.zeros((40, least - 1, 3)))


def test_heads_that_do_not_share_the_width_are_named():
    model = models.VisionTransformer(width=64, heads=3)
    with pytest.raises(ValueError, match="`width` is 64, which 3 `heads` do not"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((16, 16, 3)))


def test_models_load_only_what_is_asked_for():
    code = (
        "import sys; from protojax import models; models.SqueezeNet; "
        "assert 'protojax.models.squeezenet' in sys.modules; "
        "assert 'protojax.models.resnet' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_map_of_models_is_true_and_ends_in_an_error():
    for name in models._NETWORKS:
        assert name in dir(models)
        assert getattr(models, name).__name__ == name
    with pytest.raises(AttributeError, match="'AlexNet'"):
        _ = models.AlexNet


def test_type_checkers_see_the_models_that_there_are():
    (checked,) = (
        node
        for node in ast.parse(inspect.getsource(models)).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    found = {
        (node.module.removeprefix("protojax.models").removeprefix("."), alias.name)
        for node in checked.body
        for alias in node.names
        if alias.asname == alias.name  # which makes it a name of the package
    }
    networks = {(module, name) for name, module in models._NETWORKS.items()}
    assert found == networks | {("", name) for name in models._MODULES}
