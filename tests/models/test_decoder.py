"""Decoders against the counts, sizes and numbers of the originals."""

import jax
import jax.numpy as jnp
import pytest

from protojax import activations, models

KEY = jax.random.key(0)


def built(model, code):
    """The shapes of the parameters, how many there are, and of the image."""
    variables = jax.eval_shape(model.init, KEY, code)
    image = jax.eval_shape(model.apply, variables, code)
    return sum(leaf.size for leaf in jax.tree.leaves(variables)), image.shape


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("code", "count"),
    [
        ((512,), 7211457),
        ((2, 2, 512), 5113793),
        ((2, 2, 256), 2295489),
        ((4, 4, 256), 1246657),
        ((4, 4, 128), 542017),
        ((8, 8, 128), 279745),
        ((8, 8, 64), 103553),
    ],
)
def test_F6_the_authors_decoder_has_their_counts_for_every_layer(code, count, channels):
    found, shape = built(models.Decoder((32, 32, channels)), jnp.zeros(code))
    assert shape == (32, 32, channels)
    assert found == count + (2050 if channels == 3 else 0)


def test_a_code_of_half_the_image_is_decoded_where_the_original_breaks():
    _, shape = built(models.Decoder((32, 32, 1)), jnp.zeros((16, 16, 32)))
    assert shape == (32, 32, 1)


@pytest.mark.parametrize("code", [(7,), (13, 13, 4), (64, 64, 2), (100, 100, 1)])
def test_any_code_makes_an_image_of_any_size(code):
    for model in (models.Decoder((64, 64, 3), widest=16), models.SmallDecoder):
        made = model((64, 64, 3)) if model is models.SmallDecoder else model
        assert built(made, jnp.zeros(code))[1] == (64, 64, 3)


def test_B8_the_reproductions_networks_have_their_counts():
    small = models.SmallDecoder((28, 28, 1))
    assert built(small, jnp.zeros(128)) == (149889, (28, 28, 1))
    assert built(small, jnp.zeros((7, 7, 64))) == (66625, (28, 28, 1))
    # Batch norms of 32 and 64 channels keep two numbers more for each.
    classifier = models.SmallClassifier()
    assert built(classifier, jnp.zeros((28, 28, 1))) == (422026 - 2 * 96, (10,))


@pytest.mark.parametrize(
    ("channels", "classes", "count"),
    [(1, 10, 4672490), (3, 10, 4673066), (3, 100, 4719236)],
)
def test_B3_the_authors_classifier_has_their_counts(channels, classes, count):
    model, x = models.StridedVGG(classes), jnp.zeros((32, 32, channels))
    params = jax.eval_shape(model.init, KEY, x)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    blocks = {"0": 352 if channels == 1 else 928, "1": 18560, "2a": 73984, "2": 147712}
    blocks |= {"3a": 295424, "3": 590336, "4a": 1180672, "4": 2360320}
    for name, expected in blocks.items():
        leaves = jax.tree.leaves([params[f"conv{name}"], params[f"norm{name}"]])
        assert sum(leaf.size for leaf in leaves) == expected, name


def test_B4_the_authors_classifier_has_a_code_for_each_of_their_decoders():
    """Layers by name, and the size of the decoder that belongs to them."""
    model, x = models.StridedVGG(), jnp.zeros((32, 32, 1))
    variables = jax.eval_shape(model.init, KEY, x)
    layers = {"conv4a": (2, 2, 512), "conv3": (2, 2, 256), "conv3a": (4, 4, 256)}
    layers |= {"conv2": (4, 4, 128), "conv2a": (8, 8, 128), "conv1": (8, 8, 64)}
    layers |= {"conv4": (1, 1, 512), "flat": (512,), "conv0": (16, 16, 32)}
    found = jax.eval_shape(
        lambda variables: activations.record(
            lambda z: model.apply(variables, z), [*layers]
        )(x)[1],
        variables,
    )
    assert {name: found[name].shape for name in layers} == layers


def test_images_are_in_the_unit_range_and_a_batch_is_refused():
    model = models.Decoder((8, 8, 3), width=4)
    codes = 50 * jax.random.normal(KEY, (5, 2, 2, 3))
    variables = model.init(KEY, codes[0])
    found = jax.vmap(model.apply, (None, 0))(variables, codes)
    assert found.shape == (5, 8, 8, 3)
    assert found.min() >= 0 and found.max() <= 1
    with pytest.raises(ValueError, match=r"`code` has shape \(5, 2, 2, 3\)"):
        model.init(KEY, codes)
