"""Training of one small network in rounds, made to be mapped over many.

`train` is of one member. Under `jax.vmap` a hundred of them (classes, seeds, weights of
the loss) train in one program: a member that has stopped stands still while the others
go on, a member that diverges keeps its best parameters and says so, and the program
ends with the last of them. Nothing of one member enters another.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from protojax.contracts import Array, ArrayLike, Key, PyTree
from protojax.mechanisms import checks, lowering

Loss = Callable[[PyTree, PyTree, Key], Array]
"""`(params, batch, key) -> []`, minimized; `key` is consumed."""

Judge = Callable[[PyTree], Array]
"""`params -> []`, smaller is better; not random: the loss on held-out data."""

Batches = Callable[[Key], PyTree]
"""`key -> [steps, ...]` the batches of one round, say indices of examples."""


class Member(NamedTuple):
    """One network in training.

    Attributes:
      params: as they are.
      opt_state: of the optimizer.
      best: the parameters that were judged best.
      loss: `[]` what they were judged at; infinite before the first round.
      round: int `[]` how many rounds were made.
      waited: int `[]` rounds since the best one.
      diverged: bool `[]` a round ended with a loss that is no number.
      trace: `[R]` the judgement after each round, NaN where there was none yet.
    """

    params: PyTree
    opt_state: PyTree
    best: PyTree
    loss: Array
    round: Array
    waited: Array
    diverged: Array
    trace: Array


def member(
    params: PyTree, optimizer: optax.GradientTransformation, *, rounds: int
) -> Member:
    """A network before its first round.

    Args:
      params: to start from.
      optimizer: the one that `train` is given.
      rounds: the most that it may be trained for, R.

    Returns:
      The member.

    Raises:
      ValueError: for fewer than one round.

    >>> import jax.numpy as jnp, optax
    >>> member({"w": jnp.ones(2)}, optax.sgd(0.1), rounds=3).trace.shape
    (3,)
    """
    checks.count("rounds", rounds)
    dtype = jax.tree.leaves(params)[0].dtype
    return Member(
        params,
        optimizer.init(params),
        params,
        jnp.full((), jnp.inf, dtype),
        jnp.int32(0),
        jnp.int32(0),
        jnp.zeros((), bool),
        jnp.full(rounds, jnp.nan, dtype),
    )


def train(
    loss: Loss,
    start: Member,
    optimizer: optax.GradientTransformation,
    *,
    batches: Batches,
    key: Key,
    judge: Judge | None = None,
    until: ArrayLike | None = None,
    patience: ArrayLike | None = None,
) -> Member:
    """Train until nothing is gained any more, or the rounds are over.

    The randomness of round n comes from the key and n: a member that was stopped at a
    round goes on to the bit.

    Args:
      loss: what is minimized.
      start: from `member`, or from an earlier call.
      optimizer: any Optax optimizer.
      batches: of one round.
      key: folded with the number of the round.
      judge: what decides which round was best, and when to stop; the mean loss of the
        round's batches if not given.
      until: `[]` the round to stop at, at most that of `start.trace`; may be traced.
        A caller who saves progress calls again with a later one.
      patience: `[]` rounds without gain after which it stops; none by default.

    Returns:
      The member after its rounds; `best` is what to use.

    >>> import jax, jax.numpy as jnp, optax
    >>> loss = lambda params, batch, key: jnp.sum((params - batch) ** 2)
    >>> sgd = optax.sgd(0.25)
    >>> start = member(jnp.ones(()), sgd, rounds=2)
    >>> done = train(loss, start, sgd, batches=lambda key: jnp.zeros(2),
    ...              key=jax.random.key(0), judge=lambda params: params**2)
    >>> float(done.best), done.trace.tolist()
    (0.0625, [0.0625, 0.00390625])
    """
    rounds = len(start.trace)
    last = rounds if until is None else jnp.minimum(until, rounds)

    def step(carry: tuple, given: tuple) -> tuple[tuple, Array]:
        params, opt_state = carry
        value, slope = jax.value_and_grad(loss)(params, *given)
        updates, opt_state = optimizer.update(slope, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    def one_round(now: Member) -> Member:
        order, noise = jax.random.split(jax.random.fold_in(key, now.round))
        drawn = batches(order)
        steps = len(jax.tree.leaves(drawn)[0])
        (params, opt_state), values = jax.lax.scan(
            lowering.canonical(step),
            (now.params, now.opt_state),
            (drawn, jax.random.split(noise, steps)),
        )
        value = jnp.mean(values) if judge is None else judge(params)
        return _judged(value, params, opt_state, now)

    def going(now: Member) -> Array:
        still = (now.round < last) & ~now.diverged
        return still if patience is None else still & (now.waited < patience)

    return jax.lax.while_loop(going, one_round, start)


def _judged(value: Array, params: PyTree, opt_state: PyTree, now: Member) -> Member:
    better = value < now.loss  # never of a NaN
    value = value.astype(now.trace.dtype)
    return Member(
        params,
        opt_state,
        jax.tree.map(lambda new, old: jnp.where(better, new, old), params, now.best),
        jnp.where(better, value, now.loss),
        now.round + 1,
        jnp.where(better, 0, now.waited + 1),
        ~jnp.isfinite(value),
        now.trace.at[now.round].set(value),
    )


def shuffled(count: int, *, size: int) -> Batches:
    """Every example once in a round, in random order; what is left over is not used.

    Args:
      count: how many examples there are.
      size: of a batch.

    Returns:
      `key -> [count // size, size]` indices.

    Raises:
      ValueError: a batch is larger than all examples.

    >>> import jax
    >>> sorted(shuffled(6, size=3)(jax.random.key(0)).ravel().tolist())
    [0, 1, 2, 3, 4, 5]
    """
    if not 1 <= size <= count:
        raise ValueError(f"`size` is {size} of {count} examples: choose 1 to {count}")
    steps = count // size

    def batches(key: Key) -> Array:
        order = jax.random.permutation(key, count)
        return order[: steps * size].reshape(steps, size)

    return batches


def stratified(own: Array, *, size: int, share: float, steps: int) -> Batches:
    """Batches that all hold examples of one class, however rare it is.

    With 50 examples of a class among 8,000 others, three of four random batches of 50
    hold none, and the pull-away term would look at the others alone.

    Args:
      own: bool `[N]`, which examples are of the class; may be traced.
      size: of a batch.
      share: of a batch that is of the class, drawn with replacement.
      steps: batches in a round.

    Returns:
      `key -> [steps, size]` indices.

    Raises:
      ValueError: a share that leaves either side empty; a class that is known never to
        occur, or beside which nothing else does; fewer than one step.

    >>> import jax, jax.numpy as jnp
    >>> own = jnp.arange(100) < 3
    >>> drawn = stratified(own, size=10, share=0.2, steps=4)(jax.random.key(0))
    >>> jnp.sum(own[drawn], axis=1).tolist()
    [2, 2, 2, 2]
    """
    checks.count("steps", steps)
    inside = round(share * size)
    if not 1 <= inside < size:
        raise ValueError(
            f"`share` is {share} of batches of {size}: choose one that leaves at least "
            "one example on both sides"
        )
    count = jnp.sum(own)
    if checks.known(own) and not 0 < int(count) < len(own):
        raise ValueError(
            f"`own` is true for {count} of {len(own)} examples: take a class that "
            "occurs, beside others"
        )
    order = jnp.argsort(~own)  # those of the class first

    def drawn(key: Key, width: int, low: ArrayLike, high: ArrayLike) -> Array:
        return order[jax.random.randint(key, (steps, width), low, high)]

    def batches(key: Key) -> Array:
        first, second = jax.random.split(key)
        of_class = drawn(first, inside, 0, count)
        others = drawn(second, size - inside, count, len(own))
        return jnp.concatenate([of_class, others], axis=1)

    return batches


def adam(
    rate: optax.ScalarOrSchedule = 1e-3, *, decay: ArrayLike = 1e-4
) -> optax.GradientTransformation:
    """Adam as in the authors' code: the weight decay is part of the gradient.

    Args:
      rate: learning rate, or a schedule of it over steps.
      decay: `[]` penalty on all parameters, biases too; decoupled it would be AdamW.

    Returns:
      The optimizer.

    >>> import jax.numpy as jnp
    >>> optimizer, params = adam(0.1), jnp.array(0.0)
    >>> updates, _ = optimizer.update(jnp.array(3.0), optimizer.init(params), params)
    >>> round(float(updates), 3)
    -0.1
    """
    return optax.chain(optax.add_decayed_weights(decay), optax.adam(rate))
