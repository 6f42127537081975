"""Against curvlinops, which differentiates with PyTorch, and SciPy's eigensolver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import linalg

from protojax.mechanisms import curvature

torch = pytest.importorskip("torch", reason="the peer is PyTorch's")
peer = pytest.importorskip("curvlinops", reason="curvlinops comes with the extra bench")
nn, functional = torch.nn, torch.nn.functional


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # beside JAX's own
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(17, 6)), rng.integers(0, 3, 17)


ACTS = {
    "tanh": (jnp.tanh, nn.Tanh()),
    "relu": (jax.nn.relu, nn.ReLU()),
    "sigmoid": (jax.nn.sigmoid, nn.Sigmoid()),
}
LOSSES = {
    "cross-entropy": (
        lambda out, e: -jax.nn.log_softmax(out)[e[1]],
        nn.CrossEntropyLoss(),
        torch.tensor,
    ),
    # the mean over examples and outputs
    "squared error": (
        lambda out, e: jnp.mean((out - jax.nn.one_hot(e[1], 3)) ** 2),
        nn.MSELoss(),
        lambda y: functional.one_hot(torch.tensor(y), 3).double(),
    ),
}


def mixed(shares, functions, *args):
    """One of ours, or a mixture, so that all are one program."""
    return sum(share * ours(*args) for share, (ours, *_) in zip(shares, functions))


def predict(acts, params, example):
    first, a, second, b = params
    return second @ mixed(acts, ACTS.values(), first @ example[0] + a) + b


def twin(act):
    """The same multilayer perceptron with PyTorch, and its parameters for us."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), ACTS[act][1], nn.Linear(8, 3)).double()
    return net, [np.array(p.detach()) for p in net.parameters()]


@pytest.mark.usefixtures("x64")
def test_peers_c12_products_are_those_of_curvlinops(data, dense):
    @jax.jit
    def ours(params, acts, losses):
        outputs = lambda p, e: predict(acts, p, e)
        loss = lambda out, e: mixed(losses, LOSSES.values(), out, e)
        whole = lambda p, e: loss(outputs(p, e), e)
        operators = (
            curvature.mean_hessian(whole, params, data, batch_size=4),
            curvature.mean_gauss_newton(outputs, loss, params, data, batch_size=4),
        )
        return [dense(product, params) for product in operators]

    x, y = data
    for act, acts in zip(ACTS, np.eye(len(ACTS))):
        net, params = twin(act)
        for (_, theirs, labels), losses in zip(LOSSES.values(), np.eye(len(LOSSES))):
            batches = [  # of unequal sizes
                (torch.tensor(x[i : i + 5]), labels(y[i : i + 5]))
                for i in range(0, 17, 5)
            ]
            for operator, matrix in zip(
                (peer.HessianLinearOperator, peer.GGNLinearOperator),
                ours(params, acts, losses),
            ):
                whole = operator(net, theirs, list(net.parameters()), batches)
                expected = whole @ torch.eye(whole.shape[1], dtype=torch.float64)
                np.testing.assert_allclose(
                    matrix, expected.detach().numpy(), rtol=1e-6, atol=1e-12
                )


@pytest.mark.usefixtures("x64")
def test_peers_c12_the_top_four_are_those_of_scipy_and_curvlinops(data):
    net, params = twin("tanh")
    ours, theirs, labels = LOSSES["cross-entropy"]
    x, y = data
    operator = peer.HessianLinearOperator(
        net, theirs, list(net.parameters()), [(torch.tensor(x), labels(y))]
    )
    expected, vectors = linalg.eigsh(operator.to_scipy(), k=4, which="LM")

    @jax.jit
    def pairs(params):
        loss = lambda p, e: ours(predict(np.eye(3)[0], p, e), e)
        product = curvature.mean_hessian(loss, params, data)
        return curvature.top_eigenpairs(
            product, params, key=jax.random.key(0), num=4, steps=60
        )

    found = jax.tree.map(np.asarray, pairs(params))
    order = np.argsort(-np.abs(expected))
    np.testing.assert_allclose(found.values, expected[order], rtol=1e-8)
    flat = np.concatenate([leaf.reshape(4, -1) for leaf in found.vectors], axis=1)
    cosines = np.abs(np.sum(flat * vectors.T[order], axis=1))
    np.testing.assert_allclose(cosines, 1, atol=1e-6)


@pytest.mark.realdata
@pytest.mark.slow
def test_the_parameter_hessian_of_resnet_20_as_the_record_takes_it(
    data_folder, monkeypatch
):
    for extra in ("captum", "pyhessian"):
        pytest.importorskip(extra, reason="the record compares with more")
    from benchmarks import curvature_peers as record

    monkeypatch.setenv("PROTOJAX_DATA", str(data_folder))
    sizes = record.Sizes(images=4, batch=2, steps=32, nodes=4, probes=2)
    problem, _ = record.load(sizes)
    ours, theirs = record.ours(problem), record.by_curvlinops(problem)
    assert ours["dimension"] == 269722
    np.testing.assert_allclose(
        ours["eigenvalues"][:2], theirs["eigenvalues"][:2], rtol=1e-3
    )
    relative = np.divide(ours["residuals"], np.abs(ours["eigenvalues"]))
    assert np.all(relative[:2] < 1e-2)
