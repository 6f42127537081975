"""Explanations by reconstruction: many networks at once, and against PyTorch.

python -m benchmarks.reconstruction [--quick] [--json FILE]

Sixteen explanation networks (XNN) are trained by `srae.train` under `vmap` in one
program; one after another by a program of one; and one after another in PyTorch, with
its fused Adam. All start from the same parameters and see the same batches; their
losses are compared before anything is timed. Seconds are those of a step of all
sixteen. The decoder of ClaDec is trained in the same way, one against one.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import timing, torch_reconstruction
from protojax import models, srae
from protojax.models import xnn

MEMBERS = 16


class Decoded(NamedTuple):
    """Sizes of a decoder, and how much is done."""

    code: int = 512
    side: int = 32
    batch: int = 32
    steps: int = 16
    rounds: int = 5


class Sizes(NamedTuple):
    """Of the networks, and how much is done."""

    units: int
    widths: tuple[int, ...]
    features: int
    batch: int
    steps: int
    rounds: int
    examples: int = 1000
    members: int = MEMBERS


WORKS = {
    f"{MEMBERS} XNNs": Sizes(256, (64, 20), 5, 50, 100, 7),
    f"{MEMBERS} XNNs, paper size": Sizes(4096, (800, 100), 5, 50, 8, 3),
}
QUICK = Sizes(12, (6, 4), 3, 5, 2, 1, examples=20, members=2)


def main() -> None:
    """Run from the command line."""
    timing.main(rows, __doc__)


def rows(quick: bool) -> Iterator[timing.Row]:
    """Yield the table.

    Args:
      quick: tiny sizes.

    Yields:
      Two rows for each work of many networks, one for each peer; one for a decoder.
    """
    for work, sizes in WORKS.items():
        yield from explanation_networks(work, QUICK if quick else sizes, quick)
    yield decoder_step(Decoded(8, 8, 2, 2, 1) if quick else Decoded(), quick)


def explanation_networks(work: str, sizes: Sizes, quick: bool) -> Iterator[timing.Row]:
    """Time one work.

    Args:
      work: its name.
      sizes: of the networks.
      quick: whether memory is left unmeasured.

    Yields:
      A row for each peer.
    """
    case = _case(sizes)
    ours = timing.compiled(jax.vmap(functools.partial(_train, sizes), _AXES), *case)
    one = jax.jit(functools.partial(_train, sizes))

    def in_turn() -> list[Any]:
        done = [one(*_member(case, i)) for i in range(sizes.members)]
        return jax.block_until_ready(done)

    theirs = torch_training(sizes)
    losses = np.asarray(ours.run()[1])
    # Rounding differs from step to step, and Adam divides by it where slopes are small.
    timing.assert_agree(work, losses, [float(loss) for _, loss in in_turn()])
    timing.assert_agree(work, losses, theirs())
    times = timing.interleave(
        {"ours": ours.run, "in turn": in_turn, "torch": theirs}, rounds=sizes.rounds
    )
    memory = None if quick else timing.peak_memory(torch_training, sizes)
    peers = {
        "in turn": (None, "protojax, one after another"),
        "torch": (memory, "PyTorch, one after another"),
    }
    shape = "-".join(map(str, (sizes.units, *sizes.widths, sizes.features)))
    for name, (peer_memory, peer) in peers.items():
        yield timing.row(
            work,
            times["ours"].median / sizes.steps,
            peer=peer,
            peer_s=times[name].median / sizes.steps,
            memory_mb=ours.memory_mb,
            peer_memory_mb=peer_memory,
            compile_s=ours.compile_s,
            setting=f"{shape}, batch {sizes.batch}; seconds of a step of all "
            f"{sizes.members}",
        )


def decoder_step(sizes: Decoded, quick: bool) -> timing.Row:
    """Time a step of the authors' decoder of a vector, by squared error.

    Args:
      sizes: of the decoder.
      quick: whether memory is left unmeasured.

    Returns:
      The row.
    """
    ours = timing.compiled(
        functools.partial(_train_decoder, sizes.steps), *_decoder_case(sizes)
    )
    theirs = torch_decoder(sizes)
    timing.assert_agree("decoder step", np.asarray(ours.run()[1])[None], theirs())
    times = timing.interleave({"ours": ours.run, "torch": theirs}, rounds=sizes.rounds)
    return timing.row(
        "decoder step",
        times["ours"].median / sizes.steps,
        peer="PyTorch",
        peer_s=times["torch"].median / sizes.steps,
        memory_mb=ours.memory_mb,
        peer_memory_mb=None if quick else timing.peak_memory(torch_decoder, sizes),
        compile_s=ours.compile_s,
        setting=f"code {sizes.code}, {sizes.side} px, batch {sizes.batch}",
    )


def torch_decoder(sizes: Decoded) -> Callable[[], list[float]]:
    """The same training in PyTorch, as a thunk that returns the last loss.

    Args:
      sizes: of the decoder.

    Returns:
      What trains it.
    """
    params, codes, images = jax.tree.map(np.asarray, _decoder_case(sizes))
    return functools.partial(
        torch_reconstruction.train_decoder, params["params"], codes, images, sizes.steps
    )


def _decoder_case(sizes: Decoded) -> tuple:
    """Parameters, codes and images."""
    codes = jax.random.uniform(jax.random.key(1), (sizes.batch, sizes.code))
    shape = (sizes.batch, sizes.side, sizes.side, 1)
    images = jax.random.uniform(jax.random.key(2), shape)
    params = jax.jit(models.Decoder(shape[1:]).init)(jax.random.key(0), codes[0])
    return params, codes, images


def _train_decoder(
    steps: int, params: Any, codes: jax.Array, images: jax.Array
) -> tuple[Any, jax.Array]:
    model, optimizer = models.Decoder(images.shape[1:]), srae.adam(3e-4, decay=1e-5)

    def loss(params: Any, batch: jax.Array, key: Any) -> jax.Array:
        del batch, key
        decoded = jax.vmap(model.apply, (None, 0))(params, codes)
        return jax.numpy.mean((decoded - images) ** 2)

    done = srae.train(
        loss,
        srae.member(params, optimizer, rounds=1),
        optimizer,
        batches=lambda _: jax.numpy.zeros(steps),
        key=jax.random.key(0),
        judge=lambda params: loss(params, codes, None),
    )
    return done.params, done.loss


def torch_training(sizes: Sizes) -> Callable[[], list[float]]:
    """The same training in PyTorch, as a thunk that returns the last losses.

    Args:
      sizes: of the networks.

    Returns:
      What trains all networks, one after another.
    """
    case = jax.tree.map(np.asarray, _case(sizes))
    return functools.partial(torch_reconstruction.train, *case)


_AXES = (0, None, 0, 0)


def _case(sizes: Sizes) -> tuple:
    """Parameters, units, scores and batches."""
    keys = jax.random.split(jax.random.key(0), sizes.members)
    z = jax.random.uniform(jax.random.key(1), (sizes.examples, sizes.units))
    scores = jax.random.normal(jax.random.key(2), (sizes.members, sizes.examples, 1))
    model = _model(sizes)
    params = jax.jit(jax.vmap(lambda key: model.init(key, z[0])["params"]))(keys)
    shape = (sizes.members, sizes.steps, sizes.batch)
    batches = jax.random.randint(jax.random.key(3), shape, 0, sizes.examples)
    return params, z, scores, batches


def _model(sizes: Sizes) -> models.XNN:
    return models.XNN(
        sizes.units, features=sizes.features, widths=sizes.widths, dropout=0.0
    )


def _member(case: tuple, i: int) -> tuple:
    params, z, scores, batches = case
    return jax.tree.map(lambda leaf: leaf[i], params), z, scores[i], batches[i]


def _train(
    sizes: Sizes, params: Any, z: jax.Array, scores: jax.Array, batches: jax.Array
) -> tuple[Any, jax.Array]:
    optimizer = srae.adam(1e-3)
    loss = srae.on_batches(xnn.function(_model(sizes)), z, scores, srae.Weights())
    done = srae.train(
        loss,
        srae.member(params, optimizer, rounds=1),
        optimizer,
        batches=lambda _: batches,
        key=jax.random.key(0),
        judge=lambda params: loss(params, batches[-1], None),
    )
    return done.params, done.loss


if __name__ == "__main__":
    main()
