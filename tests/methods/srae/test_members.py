"""Many members at once are each what they are alone, and planted concepts are found."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from protojax import models, srae
from protojax.models import xnn

KEY = jax.random.key(0)


def pick(tree, i):
    """One member of many."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[i], tree)


def planted(count, size=256, seed=0):
    """F4: five sources, switched on at random, mixed into units."""
    rng = np.random.default_rng(seed)
    on = rng.uniform(size=(count, 5)) < 0.5
    sources = 3 * on * np.maximum(rng.normal(size=(count, 5)), 0)
    mix = rng.normal(size=(5, size)) / 5**0.5
    z = np.maximum(sources @ mix + 0.1 * rng.normal(size=(count, size)), 0)
    scores = sources @ np.array([4.0, 3, 2, -2, -1])
    return jnp.float32(z), jnp.float32(scores[:, None]), sources


def training(z, scores, *, widths, rounds, before, pull=None):
    """`(key, weights) -> Member` of one explanation network, with pre-training."""
    model = models.XNN(z.shape[1], widths=widths)
    optimizer, plain = srae.adam(1e-3), srae.adam(1e-3, decay=0.0)
    batches = srae.shuffled(len(z), size=50)

    def one(key, weights):
        first, second, third = jax.random.split(key, 3)
        params = model.init(first, z[0])["params"]
        params = srae.pretrain(
            params, z, scores, plain, batches=batches, key=second, rounds=before
        )
        loss = srae.on_batches(xnn.function(model), z, scores, weights, pull=pull)
        return srae.train(
            loss,
            srae.member(params, optimizer, rounds=rounds),
            optimizer,
            batches=batches,
            key=third,
            judge=lambda params: loss(params, jnp.arange(len(z)), None),
        )

    return one


@functools.cache
def programs():
    """For several tests, of one member and of three: 60 rows of 12 units."""
    model, optimizer = models.XNN(12, features=3, widths=(6,)), srae.adam()

    def begin(key):
        params = model.init(key, jnp.zeros(12))["params"]
        return srae.member(params, optimizer, rounds=3)

    def go_on(start, key, weights, scores, z, until):
        loss = srae.on_batches(xnn.function(model), z, scores, weights)
        return srae.train(
            loss,
            start,
            optimizer,
            batches=srae.shuffled(60, size=20),
            key=key,
            judge=lambda params: loss(params, jnp.arange(60), None),
            until=until,
        )

    counted = chex.assert_max_traces(go_on, n=1)
    three = jax.vmap(counted, (0, 0, 0, 0, None, None))
    return jax.jit(jax.vmap(begin)), jax.jit(go_on), jax.jit(three)


@pytest.fixture
def small():
    """Members and data in double precision: rounding grows with every step of Adam."""
    with jax.enable_x64(True):
        begin, one, three = programs()
        keys = jax.random.split(KEY, 3)
        z, scores, _ = planted(60, size=12)
        z, scores = np.float64(z), np.float64(scores)
        scores = np.stack([scores, 2 * scores, -scores])
        yield one, three, begin(keys), keys, jnp.asarray(scores), jnp.asarray(z)


def three_of(**values):
    """The weights of three members."""
    same = jax.tree.map(lambda w: jnp.full(3, w, float), srae.Weights())
    return same._replace(**{name: jnp.array(value) for name, value in values.items()})


def test_a_member_of_many_is_the_one_trained_alone(small):
    one, three, start, keys, scores, z = small
    weights = three_of(rec=[15.0, 10, 0], pull=[5.0, 10, 0], q=[100.0, 1, 9])
    together = three(start, keys, weights, scores, z, 3)
    for i in range(3):
        alone = one(pick(start, i), keys[i], pick(weights, i), scores[i], z, 3)
        chex.assert_trees_all_close(pick(together.best, i), alone.best, atol=1e-6)
        np.testing.assert_allclose(together.trace[i], alone.trace, atol=1e-6)


def test_one_that_diverges_leaves_the_others_as_they_are_and_says_so(small):
    _, three, start, keys, scores, z = small
    before = three(start, keys, three_of(), scores, z, 3)
    after = three(start, keys, three_of(), scores.at[1].set(jnp.inf), z, 3)
    assert after.diverged.tolist() == [False, True, False]
    assert after.round.tolist() == [3, 1, 3]
    assert np.isinf(after.loss[1]) and np.isnan(after.trace[1, 1:]).all()
    assert np.all(np.isfinite(before.trace))
    others = lambda tree: pick(tree, [0, 2])
    chex.assert_trees_all_equal(others(before), others(after))
    # What it had learned before stays as it was.
    chex.assert_trees_all_equal(pick(after.best, 1), pick(start.best, 1))


def test_classes_seeds_weights_and_units_share_one_program(small):
    """Two of the units are constant, one of them zero, which does no harm."""
    _, three, start, keys, scores, z = small  # which counts how often it is traced
    z = z.at[:, 0].set(3.0).at[:, 1].set(0.0)
    weights = three_of(rec=[1.0, 10, 100])
    done = three(start, keys, weights, jnp.stack([scores[0]] * 3), z, 3)
    assert not np.any(done.diverged) and np.all(np.isfinite(done.trace))
    assert len(np.unique(done.loss)) == 3


def test_training_that_was_stopped_goes_on_to_the_bit(small):
    one, _, start, keys, scores, z = small
    given = (keys[0], srae.Weights(), scores[0], z)
    through = one(pick(start, 0), *given, 3)
    stopped = one(pick(start, 0), *given, 1)
    assert int(stopped.round) == 1 and np.isnan(stopped.trace[1])
    chex.assert_trees_all_equal(one(stopped, *given, 3), through)
    assert through.trace[2] < through.trace[0]


def quadratic(rate=0.25):
    """One number that is drawn to zero; and what it costs."""
    sgd = optax.sgd(rate)
    loss = lambda params, batch, _: jnp.sum((params - batch) ** 2)
    train = functools.partial(
        srae.train, loss, optimizer=sgd, batches=lambda _: jnp.zeros(2), key=KEY
    )
    return train, lambda rounds: srae.member(jnp.ones(()), sgd, rounds=rounds)


def test_a_member_that_gains_nothing_stops_and_the_others_go_on():
    train, member = quadratic()

    def one(floor):
        judge = lambda params: jnp.maximum(params**2, floor)
        return train(start=member(6), judge=judge, patience=2)

    many = jax.jit(jax.vmap(one))(jnp.array([0.1, 1e-9, 0.01]))
    # The number is 4^-n after n rounds: 0.1 is reached after 1, 0.01 after 2.
    assert many.round.tolist() == [3, 6, 4]
    assert many.best.tolist() == [4**-1, 4**-6, 4**-2]
    alone = jax.jit(one)
    for i, floor in enumerate([0.1, 1e-9, 0.01]):
        chex.assert_trees_all_equal(pick(many, i), alone(floor))


def test_the_best_round_counts_and_not_the_last():
    train, member = quadratic()
    away = train(start=member(4), judge=lambda params: (params - 0.25) ** 2)
    assert float(away.best) == 0.25 and float(away.params) == 4**-4
    assert float(away.loss) == 0 and int(away.waited) == 3


def test_adam_decays_as_pytorch_does():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start, slopes = rng.normal(size=3), rng.normal(size=(6, 3))
    theirs = torch.tensor(start, requires_grad=True)
    adam = torch.optim.Adam([theirs], lr=1e-2, weight_decay=0.1)
    with jax.enable_x64(True):
        optimizer, ours = srae.adam(1e-2, decay=0.1), jnp.asarray(start)
        state = optimizer.init(ours)
        for slope in slopes:
            theirs.grad = torch.tensor(slope)
            adam.step()
            updates, state = optimizer.update(jnp.asarray(slope), state, ours)
            ours = optax.apply_updates(ours, updates)
        # PyTorch adds its epsilon at another place: 1e-8 relative to a slope of one.
        np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-8)


def test_a_round_sees_every_example_once_and_strata_are_kept():
    drawn = srae.shuffled(10, size=3)(KEY)
    assert drawn.shape == (3, 3) and len(np.unique(drawn)) == 9
    assert np.any(drawn != srae.shuffled(10, size=3)(jax.random.key(1)))
    own = jnp.arange(40) % 20 == 3
    drawn = srae.stratified(own, size=8, share=0.25, steps=50)(KEY)
    assert drawn.shape == (50, 8)
    assert np.all(own[drawn].sum(1) == 2)
    assert len(np.unique(drawn)) == 40


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: srae.shuffled(5, size=6), "`size` is 6 of 5 examples"),
        (
            lambda: srae.stratified(jnp.zeros(5, bool), size=4, share=0.5, steps=1),
            "`own` is true for 0 of 5",
        ),
        (
            lambda: srae.stratified(jnp.arange(5) < 2, size=4, share=0.1, steps=1),
            "`share` is 0.1 of batches of 4",
        ),
        (lambda: srae.member(jnp.ones(2), optax.sgd(1.0), rounds=0), "`rounds` is 0"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_pre_training_reconstructs_layer_by_layer():
    z, scores, _ = planted(200, size=16)
    model = models.XNN(16, features=5, widths=(12, 8), scores=1)
    batches = srae.shuffled(200, size=20)

    @jax.jit
    def run(key):
        params = model.init(key, z[0])["params"]
        knobs = {"batches": batches, "key": key, "rounds": 10}
        done = srae.pretrain(params, z, scores, srae.adam(1e-2, decay=0.0), **knobs)
        return params, done, *(xnn.function(model)(p, z, None) for p in (params, done))

    params, done, before, after = run(KEY)
    assert jax.tree.structure(done) == jax.tree.structure(params)
    error = lambda decoded: np.mean((np.asarray(z) - decoded) ** 2)
    assert error(after[2]) < 0.3 * error(before[2])
    features, residual = np.asarray(after[0]), np.asarray(scores - after[1])
    # That of least squares is orthogonal to every feature, and sums to zero.
    np.testing.assert_allclose(features.T @ residual / 200, 0, atol=1e-2)
    assert abs(residual.mean()) < 1e-3


def test_counts_of_parameters_and_shapes_are_those_of_the_dossier():
    """A3: 4096-800-100-5 and one score."""
    model = models.XNN(4096)
    params = jax.eval_shape(model.init, KEY, jnp.zeros(4096))["params"]
    count = lambda kind: sum(
        leaf.size
        for name in params
        if name.startswith(kind)
        for leaf in jax.tree.leaves(params[name])
    )
    assert (count("encoder"), count("decoder"), count("readout")) == (
        3358205,
        3362296,
        6,
    )
    shapes = [
        params[f"{kind}{i}"]["kernel"].shape
        for kind in ("encoder", "decoder")
        for i in range(3)
    ]
    assert shapes == [
        (4096, 800),
        (800, 100),
        (100, 5),
        (800, 4096),
        (100, 800),
        (5, 100),
    ]


def test_an_explanation_network_starts_like_pytorch_and_drops_in_training_alone():
    model = models.XNN(400, widths=(300, 20), dropout=0.5)
    apply, z = xnn.function(model), jnp.ones((3, 400))

    @jax.jit
    def run(key):
        variables = model.init(key, z)
        params = variables["params"]
        still, again, noisy = (apply(params, z, k) for k in (None, None, key))
        as_is = functools.partial(model.apply, variables)
        features = as_is(z, method="encode")
        before, decoded = as_is(z, method="before"), as_is(features, method="decode")
        return params, still, again, noisy, features, before, decoded

    params, still, again, noisy, features, before, decoded = run(KEY)
    kernel = params["encoder0"]["kernel"]
    assert np.abs(kernel).max() <= 0.05 and np.abs(kernel).max() > 0.0499
    assert np.std(kernel) == pytest.approx(0.05 / 3**0.5, rel=0.01)
    chex.assert_trees_all_equal(still, again)
    assert np.any(noisy[2] != still[2])
    np.testing.assert_allclose(features, still[0], rtol=1e-6)
    assert np.all(features >= 0)
    np.testing.assert_allclose(np.maximum(before, 0), features, rtol=1e-6)
    np.testing.assert_allclose(decoded, still[2], rtol=1e-6)


def outcome(held, member, model):
    """R^2 on held-out rows, live features, and their mean squared correlation."""
    features, predicted, _ = xnn.function(model)(member.best, held[0], None)
    found = srae.regression(predicted[:, 0], held[1][:, 0])
    parts = srae.contributions(features, member.best["readout"]["kernel"][:, 0])
    apart = srae.correlations(parts)
    return found.r2, jnp.sum(jnp.any(features > 0, axis=0)), srae.shared_variance(apart)


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize(
    ("pull", "weights", "median", "least_alive"),
    [
        (srae.pull_away, srae.Weights(1.0, 15.0, 5.0), 0.99, 2),
        (srae.pull_away_images, srae.Weights(1.0, 10.0, 10.0), 0.99, 3),
    ],
)
def test_F4_planted_sources_pre_trained(pull, weights, median, least_alive):
    """Eight seeds of 1,500 steps; every run is faithful, and pull-away pulls away."""
    z, scores, _ = planted(5000)
    held, z, scores = (z[4000:], scores[4000:]), z[:4000], scores[:4000]
    model = models.XNN(256, widths=(64, 20))
    one = training(z, scores, widths=(64, 20), rounds=19, pull=pull, before=5)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def run(key, weights):
        return outcome(held, one(key, weights), model)

    keys = jax.random.split(KEY, 8)
    r2, alive, shared = run(keys, weights)
    assert np.min(r2) > 0.98 and np.median(r2) > median
    assert np.min(alive) >= least_alive
    _, _, without = run(keys, weights._replace(pull=0.0))
    assert np.median(shared) < np.median(without)


def test_planted_concepts_are_recovered():
    """Faithful, and what the features say is what the sources say."""
    z, scores, sources = planted(700, size=48, seed=1)
    held, z, scores = (z[500:], scores[500:]), z[:500], scores[:500]
    model = models.XNN(48, widths=(24,))
    one = training(z, scores, widths=(24,), rounds=60, before=30)

    @jax.jit
    def run(key):
        member = one(key, srae.Weights(rec=5.0, pull=2.0))
        features = xnn.function(model)(member.best, held[0], None)[0]
        parts = srae.contributions(features, member.best["readout"]["kernel"][:, 0])
        return *outcome(held, member, model), parts

    r2, alive, _, parts = run(KEY)
    assert r2 > 0.97 and alive >= 2
    found, design = np.asarray(parts), np.c_[sources[500:], np.ones(200)]
    left = found - design @ np.linalg.lstsq(design, found, rcond=None)[0]
    # ReLUs of a mixture are not quite linear in the sources.
    assert np.sum(np.var(left, axis=0)) < 0.1 * np.sum(np.var(found, axis=0))
