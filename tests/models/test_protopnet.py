"""The head of prototypes, on feature maps of its own, ours and anybody's networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from protojax import activations, models, prototypes
from protojax.models import protopnet

KEY = jax.random.key(0)
FEATURES = np.random.default_rng(0).normal(size=(5, 4, 12)).astype(np.float32)


def made(features=FEATURES, **knobs):
    owners = prototypes.owners(6, 3)
    head = models.PrototypeHead(classes=3, owners=owners, depth=8, **knobs)
    return head, jax.jit(head.init)(KEY, features)


def test_the_head_is_the_formula_of_the_paper():
    head, variables = made()
    params = jax.tree.map(np.asarray, variables["params"])
    first, second = (params["add_on_layers"][name] for name in ("conv1", "conv2"))
    hidden = np.maximum(FEATURES @ first["kernel"][0, 0] + first["bias"], 0)
    z = 1 / (1 + np.exp(-(hidden @ second["kernel"][0, 0] + second["bias"])))
    d = np.sum((z[:, :, None] - params["prototypes"]) ** 2, axis=-1)
    s = np.log((d + 1) / (d + 1e-4))
    of = functools.partial(head.apply, variables, FEATURES)
    np.testing.assert_allclose(of(method="latent"), z, atol=1e-5)
    np.testing.assert_allclose(of(method="distances"), d, atol=1e-5)
    np.testing.assert_allclose(of(method="similarities"), s, atol=1e-4)
    votes = np.max(s, axis=(0, 1)) @ params["last_layer"]
    np.testing.assert_allclose(of(), votes, atol=1e-4)


def test_the_head_starts_as_published():
    head = models.PrototypeHead(classes=4, owners=prototypes.owners(400, 4), depth=128)
    params = head.init(KEY, jnp.zeros((1, 1, 512)))["params"]
    found = params["prototypes"]
    assert found.shape == (400, 128) and found.min() >= 0 and found.max() < 1
    assert abs(float(found.mean()) - 0.5) < 0.01
    for layer in params["add_on_layers"].values():
        # Kaiming with fan_out 128: standard deviation 1/8; of n draws known to 1 in
        # sqrt(2 n), here 0.6 % at most
        assert float(layer["kernel"].std()) == pytest.approx(0.125, rel=0.03)
        assert not np.any(layer["bias"])
    votes = prototypes.connections(head.owners, 4)
    np.testing.assert_array_equal(params["last_layer"], votes)


@pytest.mark.parametrize(
    ("inputs", "depth", "widths"),
    [
        (512, 128, (256, 256, 128, 128)),
        (2048, 128, (1024, 1024, 512, 512, 256, 256, 128, 128)),
        (128, 128, (128, 128)),
        (512, 100, (256, 256, 128, 128, 100, 100)),
    ],
)
def test_a_bottleneck_halves_the_channels(inputs, depth, widths):
    assert protopnet.bottleneck(inputs, depth) == widths


def test_other_measures_windows_and_no_add_on_layers():
    bare = {"add_on": lambda *_: (), "measure": prototypes.cosine_distances}
    features = FEATURES[..., :8]
    head, variables = made(features, **bare, window=(2, 2))
    assert variables["params"]["prototypes"].shape == (6, 32)
    assert "add_on_layers" not in variables["params"]
    latent = head.apply(variables, features, method="latent")
    np.testing.assert_array_equal(latent[0, 0, :8], features[0, 0])
    assert head.apply(variables, features, method="distances").shape == (4, 3, 6)
    with pytest.raises(ValueError, match="ends with 12 channels, and `depth` is 8"):
        made(add_on=lambda *_: ())


def test_dossier_8_fewer_prototypes_are_another_head_of_the_same_variables():
    head, variables = made()
    kept = np.array([0, 2, 3, 4])
    params = dict(variables["params"])
    params |= {name: params[name][kept] for name in ("prototypes", "last_layer")}
    fewer = head.clone(owners=tuple(np.array(head.owners)[kept].tolist()))
    masked = dict(variables["params"])
    masked["last_layer"] = masked["last_layer"].at[np.array([1, 5])].set(0)
    np.testing.assert_allclose(
        fewer.apply({"params": params}, FEATURES),
        head.apply({"params": masked}, FEATURES),
        atol=1e-4,
    )
    d = head.apply(variables, FEATURES, method="distances")
    np.testing.assert_allclose(
        fewer.apply({"params": params}, FEATURES, method="distances"),
        d[..., kept],
        atol=1e-6,
    )


def mine(weights, x):
    h = checkpoint_name(jax.nn.relu(x @ weights), "mine")
    return jnp.sum(h)


def ours():
    model = models.ConvNet(classes=3, widths=(8, 8))
    return model.apply, model.init(KEY, jnp.zeros((16, 16, 3)))


@pytest.mark.parametrize(
    ("backbone", "layer"),
    [(lambda: (mine, jax.random.normal(KEY, (3, 12))), "mine"), (ours, "stage2")],
)
def test_any_network_with_a_named_layer_is_a_backbone(backbone, layer):
    fn, weights = backbone()
    x = jax.random.uniform(KEY, (16, 16, 3))
    features = protopnet.features(fn, layer)
    head = models.PrototypeHead(classes=2, owners=(0, 0, 1, 1), depth=4)
    found = features(weights, x)
    params = {"backbone": weights, "head": head.init(KEY, found)["params"]}
    network = protopnet.attach(head, features)

    @jax.jit
    def outputs(x):
        batch = jax.vmap(network, (None, 0))(params, jnp.stack([x, 1 - x]))
        return batch, jax.grad(lambda x: network(params, x)[0])(x)

    batch, slope = outputs(x)
    logits = head.apply({"params": params["head"]}, found)
    np.testing.assert_allclose(batch[0], logits, atol=1e-4)
    assert batch.shape == (2, 2) and jnp.all(jnp.isfinite(batch))
    assert slope.shape == x.shape and jnp.any(slope != 0)
    alone = functools.partial(network, params)
    assert {"latent", "distances"} <= {*activations.layers(alone, x)}


def test_a_layer_that_is_no_map_or_not_there_is_refused():
    x = jnp.ones((16, 16, 3))
    fn = lambda weights, x: checkpoint_name(jnp.sum(x), "sum") * weights
    with pytest.raises(ValueError, match="layer 'sum' is .* need a feature map"):
        protopnet.features(fn, "sum")(1.0, x)
    with pytest.raises(ValueError, match="no layer is called 'relu5'"):
        protopnet.features(fn, "relu5")(1.0, x)
