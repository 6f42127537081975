"""Explanation networks (XNN) and sparse reconstruction autoencoders (SRAE).

A small network is attached to a layer of a classifier and compresses it to a few
x-features, of which a linear read-out gives the classifier's score for a class. What a
feature adds to the score is its **contribution**: `features * readout`. All of this is
about populations, `[N, ...]`; only `attached` gives functions of one image again.

- `losses`: what such a network is trained for.
- `members`: training, made to be mapped over classes, seeds and weights.
- `greedy`: what comes before it.
- `rounds`: which trainings are accepted, and how the others are repeated.
- `attached`: the network put back, to be explained, attacked, or intervened on.
- `fidelity`: how well the read-out stands for the classifier.
- `concepts`: whether the x-features are apart, local, few, and found again.
- `codes`: a TopK autoencoder for comparison, and what codes in general are worth.

The networks themselves are `models.XNN` and `models.ConvolutionalXNN`. What is called
the authors' code is a derivative of it from their group: theirs is no longer published.
"""

from protojax.methods.srae.attached import attached, pooled, reconstructed, replaced
from protojax.methods.srae.codes import (
    Dictionary,
    active,
    dead,
    decode,
    dictionary,
    encode,
    explained_variance,
    hoyer,
    top_k,
    top_k_loss,
)
from protojax.methods.srae.concepts import (
    Correlations,
    correlations,
    matched,
    part_shares,
    redundancy,
    shared_variance,
    significant,
    spread,
)
from protojax.methods.srae.fidelity import (
    Classification,
    Regression,
    classification,
    least_squares,
    loss_recovered,
    read_back,
    regression,
)
from protojax.methods.srae.greedy import pretrain
from protojax.methods.srae.losses import (
    Output,
    Weights,
    contributions,
    faithfulness,
    objective,
    on_batches,
    pull_away,
    pull_away_images,
    sparse_reconstruction,
    squared_error,
)
from protojax.methods.srae.members import (
    Member,
    adam,
    member,
    shuffled,
    stratified,
    train,
)
from protojax.methods.srae.rounds import accepted, first_accepted, weights_of_round

__all__ = [
    "Classification",
    "Correlations",
    "Dictionary",
    "Member",
    "Output",
    "Regression",
    "Weights",
    "accepted",
    "active",
    "adam",
    "attached",
    "classification",
    "contributions",
    "correlations",
    "dead",
    "decode",
    "dictionary",
    "encode",
    "explained_variance",
    "faithfulness",
    "first_accepted",
    "hoyer",
    "least_squares",
    "loss_recovered",
    "matched",
    "member",
    "objective",
    "on_batches",
    "part_shares",
    "pooled",
    "pretrain",
    "pull_away",
    "pull_away_images",
    "read_back",
    "reconstructed",
    "redundancy",
    "regression",
    "replaced",
    "shared_variance",
    "shuffled",
    "significant",
    "sparse_reconstruction",
    "spread",
    "squared_error",
    "stratified",
    "top_k",
    "top_k_loss",
    "train",
    "weights_of_round",
]
