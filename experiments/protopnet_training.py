"""A ProtoPNet is trained stage by stage: push, prune, checkpoints, taken up to the bit.

Each kind of stage has an optimizer of its own, whose memory lasts from one of its turns
to the next; all of them have one state. What other experiments change in a training
they pass as `prepare`: another look of each batch.
"""

import collections
import functools
import itertools
import logging
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import networks, protopnet_network, protopnet_stages, trainings
from experiments.protopnet_data import Examples
from experiments.protopnet_network import Network, Weights
from experiments.protopnet_stages import Prepare, Stage
from protojax import checkpoints, prototypes, training
from protojax.scale import progress

if TYPE_CHECKING:
    from experiments.protopnet import Config

_log = logging.getLogger(__name__)

NEIGHBORS = 6
"""Training images whose classes decide whether a prototype is kept."""


class Trained(NamedTuple):
    """What comes of a training, or of its stages so far.

    Attributes:
      network: with the head that is left after pruning.
      weights: `(params, stats)`, what `Network.apply` takes.
      history: for each stage: `stage`, `steps`, `accuracy` on the test images, and the
        mean loss terms of its last epoch (where it was taken up within that, since
        then), or how far a push moved the prototypes.
    """

    network: Network
    weights: Weights
    history: list[dict[str, Any]]


def fit(
    network: Network,
    config: "Config",
    examples: Examples,
    folder: pathlib.Path,
    *,
    prepare: Prepare | None = None,
) -> Trained:
    """Train stage by stage, or take up training where it was stopped.

    Every stage has its checkpoints, so that any of them can be looked at later.
    """
    plan = protopnet_stages.stages(config, examples.epoch)
    first, network, state, history = resumed(network, config, examples, folder, plan)
    judge: Callable[..., np.ndarray] | None = None
    for place in range(first, len(plan)):
        kind, steps = plan[place]
        here, log = folder / f"{place:02d}-{kind}", {}
        notes = {"owners": network.head.owners, "history": history}
        if kind == "push":
            state, log = pushed(network, state, examples)
        elif kind == "prune":
            network, state, log = pruned(network, state, examples, config)
        else:
            end = sum(stage.steps for stage in plan[: place + 1])
            with checkpoints.saving(here, keep=1) as save:
                state, log = trained(
                    network,
                    state,
                    examples,
                    config,
                    (kind, end),
                    save=functools.partial(save, config=notes),
                    prepare=prepare,
                )
        state = trainings.agreed(state)
        weights = state.params, state.extra
        if judge is None or kind == "prune":
            judge = networks.mapped(network.apply())
        told = judge(weights, examples.test["image"])
        log["accuracy"] = protopnet_network.accuracy(told, examples.test["label"])
        history = [*history, {"stage": kind, "steps": steps, **log}]
        notes = {"owners": network.head.owners, "history": history, "finished": True}
        checkpoints.save(here, state, config=notes, keep=1)
        _log.info("%s: %.1f %% of the test images", kind, 100 * log["accuracy"])
    return Trained(network, (state.params, state.extra), history)


def resumed(
    network: Network,
    config: "Config",
    examples: Examples,
    folder: pathlib.Path,
    plan: list[Stage],
) -> tuple[int, Network, training.State, list[dict[str, Any]]]:
    """The first stage that is not finished, and the state that it goes on from."""
    for place in reversed(range(len(plan))):
        here = folder / f"{place:02d}-{plan[place].kind}"
        if not checkpoints.steps(here):
            continue
        notes = checkpoints.config(here)
        head = network.head.clone(owners=tuple(notes["owners"]))
        network = network._replace(head=head)
        like = jax.eval_shape(functools.partial(begin, network, config, examples))
        state = checkpoints.restore(here, like)
        done = place + bool(notes.get("finished"))
        return done, network, state, notes["history"]
    return 0, network, begin(network, config, examples), []


def begin(network: Network, config: "Config", examples: Examples) -> training.State:
    """The state before the first step."""
    backbone, key = network.backbone, jax.random.key(config.seed)
    drawn = jax.jit(network.head.init)(key, jnp.zeros(backbone.shape))["params"]
    params = {"backbone": backbone.weights, "head": drawn}
    optimizer = protopnet_stages.in_turn("warm", config, params, examples.epoch)
    return training.init(params, optimizer, key=key, extra=backbone.stats)


def trained(
    network: Network,
    state: training.State,
    examples: Examples,
    config: "Config",
    stage: tuple[str, int],
    *,
    save: Callable[[training.State], Any],
    prepare: Prepare | None = None,
) -> tuple[training.State, dict[str, Any]]:
    """Train one stage to its end, saving now and then; means of its last epoch.

    Args:
      network: what is trained.
      state: where to start.
      examples: on what.
      config: how.
      stage: its kind, and the step that it ends at.
      save: what a state is given to every `save_every` steps.
      prepare: changes the images, see the module.
    """
    kind, end = stage
    optimizer = protopnet_stages.in_turn(kind, config, state.params, examples.epoch)
    start = int(state.step)
    few = itertools.islice(examples.batches(start), end - start)
    of_batch = functools.partial(protopnet_stages.loss, network, config, prepare)
    recent: collections.deque = collections.deque(maxlen=examples.epoch)
    state, few = trainings.shared(state, few, config.batch)
    steps = training.train(of_batch, state, few, optimizer)
    with progress.bar(end, start, unit="step") as step:
        for number, (after, log) in enumerate(steps, start + 1):
            step(1)
            recent.append(log)
            state = after
            if number % config.save_every == 0 and number < end:
                save(state)
    state = jax.tree.map(jnp.asarray, jax.device_get(state))  # as it is on every device
    return state, _means(recent)


def tried(
    network: Network,
    config: "Config",
    examples: Examples,
    *,
    prepare: Prepare | None = None,
) -> tuple[Trained, float]:
    """A network that nobody trained, and the seconds that its training would take.

    Of each kind of stage the second step is timed; pushes do not count.
    """
    state, seconds = begin(network, config, examples), 0.0
    plan = protopnet_stages.stages(config, examples.epoch)
    for kind in {stage.kind for stage in plan if stage.steps}:
        optimizer = protopnet_stages.in_turn(kind, config, state.params, examples.epoch)
        few = itertools.islice(examples.batches(0), 2)
        of_batch = functools.partial(protopnet_stages.loss, network, config, prepare)
        steps = training.train(of_batch, state, few, optimizer)
        jax.block_until_ready(next(steps))
        start = time.perf_counter()
        jax.block_until_ready(next(steps))
        each = time.perf_counter() - start
        seconds += each * sum(stage.steps for stage in plan if stage.kind == kind)
    return Trained(network, (state.params, state.extra), []), seconds


def _means(logs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Where a stage was left at its very end, nothing is known of it."""
    names = logs[0] if logs else {}
    return {f"train_{k}": float(np.mean([log[k] for log in logs])) for k in names}


def pushed(
    network: Network, state: training.State, examples: Examples
) -> tuple[training.State, dict[str, Any]]:
    """Put every prototype onto the nearest training patch of its class."""
    weights = state.params, state.extra
    found = protopnet_network.nearest(
        network, weights, examples.in_order(), k=1, own=True
    )
    before = state.params["head"]["prototypes"]
    after = jnp.asarray(prototypes.push(found, network.head.owners))
    moved = jnp.sqrt(jnp.sum((after - before) ** 2, axis=1))
    head = {**state.params["head"], "prototypes": after}
    log = {"moved": float(jnp.mean(moved)), "moved_most": float(jnp.max(moved))}
    return state._replace(params={**state.params, "head": head}), log


def pruned(
    network: Network, state: training.State, examples: Examples, config: "Config"
) -> tuple[Network, training.State, dict[str, Any]]:
    """Drop prototypes whose nearest training images are of other classes.

    The optimizers begin anew, as their memory is of other shapes.
    """
    weights = state.params, state.extra
    found = protopnet_network.nearest(
        network, weights, examples.in_order(), k=NEIGHBORS, own=False
    )
    kept = np.flatnonzero(
        prototypes.prune(found, network.head.owners, needed=config.needed)
    )
    if not len(kept):
        raise ValueError(
            f"`needed` is {config.needed}: no prototype has so many of its "
            f"{NEIGHBORS} nearest training images in its class; require fewer"
        )
    owners = tuple(np.asarray(network.head.owners)[kept].tolist())
    head = {
        name: value[kept] if name in ("prototypes", "last_layer") else value
        for name, value in state.params["head"].items()
    }
    network = network._replace(head=network.head.clone(owners=owners))
    params = {**state.params, "head": head}
    optimizer = protopnet_stages.in_turn("last", config, params, examples.epoch)
    state = state._replace(params=params, opt_state=optimizer.init(params))
    return network, state, {"kept": len(kept), "of": len(found.image)}
