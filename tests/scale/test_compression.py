import io

import numpy as np
import PIL.Image
import pytest

from protojax.scale import compression, parts


@pytest.fixture(scope="module")
def birds():
    drawn = parts.draw(range(16), image_size=32)
    return {"image": drawn.image, "label": drawn.label, "id": np.arange(16)}


def changed(new, old):
    return (new["image"] != old["image"]).any((1, 2, 3))


def test_dossier_8_every_odd_class_is_compressed_and_no_other(birds):
    before = birds["image"].copy()
    new = compression.of_classes(birds)
    np.testing.assert_array_equal(changed(new, birds), birds["label"] % 2 == 1)
    np.testing.assert_array_equal(birds["image"], before)
    assert new["id"] is birds["id"]
    assert np.flatnonzero(compression.odd(np.arange(200))).tolist() == [
        *range(1, 200, 2)
    ]


def test_images_are_what_pillow_reads_from_the_file_it_wrote(birds):
    new = compression.of_classes(birds, chosen=lambda y: y == 3, quality=35)
    buffer = io.BytesIO()
    levels = np.uint8(np.round(255 * birds["image"][3]))
    PIL.Image.fromarray(levels).save(buffer, "JPEG", quality=35)
    np.testing.assert_array_equal(
        np.round(255 * new["image"][3]), np.asarray(PIL.Image.open(buffer))
    )
    assert new["image"].dtype == np.float32
    assert np.flatnonzero(changed(new, birds)).tolist() == [3, 11]


def test_random_compression_is_the_same_again_and_of_its_share(birds):
    draw = lambda seed, share: changed(
        compression.at_random(birds, rng=np.random.default_rng(seed), share=share),
        birds,
    )
    np.testing.assert_array_equal(draw([0, 7], 0.5), draw([0, 7], 0.5))
    shares = [draw(seed, 0.5).mean() for seed in range(20)]
    assert abs(np.mean(shares) - 0.5) < 3 * 0.5 / np.sqrt(20 * 16)  # three sigma
    assert draw(0, 1.0).all() and not draw(0, 0.0).any()


def test_what_cannot_be_compressed_is_named(birds):
    image = birds["image"][0]
    for quality in (0, 101):
        with pytest.raises(ValueError, match=f"`quality` is {quality}"):
            compression.jpeg(image, quality=quality)
    with pytest.raises(ValueError, match=r"`image` is uint8 \[32, 32, 3\]"):
        compression.jpeg(np.uint8(image), quality=20)
    with pytest.raises(ValueError, match="pixels from nan to nan"):
        compression.jpeg(np.full_like(image, np.nan), quality=20)
    with pytest.raises(ValueError, match="pixels from 0 to 2"):
        compression.jpeg(np.float32([[[0, 2, 0]]]), quality=20)
    with pytest.raises(ValueError, match="`share` is 2"):
        compression.at_random(birds, rng=np.random.default_rng(0), share=2)
