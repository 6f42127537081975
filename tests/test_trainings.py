"""What scripts train and keep, and what they refuse to train or to read."""

import numpy as np
import pytest

from experiments import classifier, trainings


def test_what_means_nothing_is_refused_before_birds_are_drawn(tmp_path):
    for config in classifier.CONFIGS.values():
        classifier.check(config)
    for knobs, message in (
        ({"save_every": 0}, "`save_every` is 0"),
        ({"test": 15}, "`test` is 15: it must be at least 16"),
        ({"widths": ()}, "`widths` is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            classifier.main(classifier.Config(**knobs), tmp_path)


def test_weights_that_were_damaged_are_named_with_the_remedy(tmp_path):
    file = tmp_path / "srae.npz"
    trainings.write(file, {"params": {"kernel": np.ones(3)}})
    whole = file.read_bytes()
    assert trainings.read(file)["params"]["kernel"].tolist() == [1, 1, 1]
    for damaged in (whole[:-30], b"", b"no weights"):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="srae.npz cannot be read .*Delete it and"):
            trainings.read(file)
