"""What the tests of ported networks share: a comparison with PyTorch's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax.models import pretrained


@pytest.fixture(scope="session")
def perturbed():
    torch = pytest.importorskip("torch")
    nn = torch.nn

    def perturbed(model):
        """In evaluation mode, with norms and statistics that are not the identity."""
        draw = torch.Generator().manual_seed(0)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
                with torch.no_grad():
                    module.weight.uniform_(0.5, 1.5, generator=draw)
                    module.bias.normal_(0, 0.2, generator=draw)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2, generator=draw)
                module.running_var.uniform_(0.5, 1.5, generator=draw)
        return model.eval()

    return perturbed


@pytest.fixture(scope="session")
def agree(perturbed):
    torch = pytest.importorskip("torch")

    def agree(ours, theirs, tmp_path, shape, *, mean, std, **names):
        """Save theirs, load into ours, and compare the logits on two random images."""
        theirs = perturbed(theirs)
        torch.save(theirs.state_dict(), tmp_path / "weights.pth")
        load = functools.partial(pretrained.load, image_size=shape[0], **names)
        variables = load(tmp_path / "weights.pth", ours)
        x = np.random.default_rng(0).uniform(size=(2, *shape, 3)).astype("float32")
        normal = ((x - np.asarray(mean)) / np.asarray(std)).transpose(0, 3, 1, 2)
        with torch.no_grad():
            wanted = theirs(torch.tensor(normal, dtype=torch.float32)).numpy()
        found = jax.jit(jax.vmap(ours.apply, in_axes=(None, 0)))(
            variables, jnp.asarray(x)
        )
        assert np.ptp(wanted) > 0
        np.testing.assert_allclose(
            found, wanted, atol=1e-4 * np.abs(wanted).max(), rtol=0
        )

    return agree


@pytest.fixture(scope="session")
def same_sizes():
    def same_sizes(ours, theirs):
        """Both have the same arrays, under the same names."""
        wanted = {
            name: array.numel()
            for name, array in theirs.state_dict().items()
            if array.ndim
        }
        like = jax.eval_shape(ours.init, jax.random.key(0), jnp.zeros((224, 224, 3)))
        leaves = jax.tree.leaves_with_path(like)
        assert {
            pretrained._name(keys, {}): leaf.size for keys, leaf in leaves
        } == wanted

    return same_sizes
