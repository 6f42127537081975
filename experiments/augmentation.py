"""The changes of images that ProtoPNet is trained with, drawn anew for each image.

The authors write thirty changed copies of every image to the disk before training: ten
rotated, ten skewed, ten sheared, each then mirrored or not. Here one of the three is
drawn whenever an image is used, so that thirty passes stand for one of theirs. What
is left of the image is stretched to its old size, so that nothing is made up.
"""

import jax
import jax.numpy as jnp

from protojax.contracts import Array, Key

DEGREES = 15.0  # of rotation, either way
SKEW = 0.2  # of a side, by which two neighboring corners come nearer
SHEAR = 10.0  # degrees, either way
GRID, BEND = 10, 5 / 224  # fields along a side, and how far their corners move


def augment(x: Array, *, key: Key, elastic: bool = False) -> Array:
    """Rotate, skew or shear an image (or bend it), then mirror it or not.

    Args:
      x: `[H, W, C]` the image.
      key: consumed.
      elastic: whether bending is one of the changes, as with Hoffmann et al. 2021 and
        not with Chen et al. 2019.

    Returns:
      `[H, W, C]`.
    """
    chosen, change, side = jax.random.split(key, 3)
    height, width, _ = x.shape
    rows = (jnp.arange(height) + 0.5) / height - 0.5
    columns = (jnp.arange(width) + 0.5) / width - 0.5
    grid = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"))
    changes = [_rotated, _skewed, _sheared] + [_bent] * elastic
    kind = jax.random.randint(chosen, (), 0, len(changes))
    source = jax.lax.switch(kind, changes, grid, change)
    mirrored = source * jnp.array([1.0, -1.0]).reshape(2, 1, 1)
    source = jnp.where(jax.random.bernoulli(side), mirrored, source)
    size = jnp.array([height, width], x.dtype).reshape(2, 1, 1)
    pixels = list((source + 0.5) * size - 0.5)
    read = jax.scipy.ndimage.map_coordinates
    planes = [read(x[..., c], pixels, 1, "nearest") for c in range(x.shape[-1])]
    return jnp.stack(planes, axis=-1)


def _rotated(grid: Array, key: Key) -> Array:
    """The largest upright square of the turned image."""
    angle = jnp.deg2rad(jax.random.uniform(key, (), minval=-DEGREES, maxval=DEGREES))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turn = jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
    return jnp.einsum("ab,bhw->ahw", turn, grid) / (cos + jnp.abs(sin))


def _sheared(grid: Array, key: Key) -> Array:
    """Rows or columns are shifted; the middle that all of them have is stretched."""
    which, size = jax.random.split(key)
    slope = jnp.tan(
        jnp.deg2rad(jax.random.uniform(size, (), minval=-1, maxval=1) * SHEAR)
    )
    row, column = grid
    along = column * (1 - jnp.abs(slope)) + slope * row
    down = row * (1 - jnp.abs(slope)) + slope * column
    rows_move = jax.random.bernoulli(which)
    return jnp.where(rows_move, jnp.stack([row, along]), jnp.stack([down, column]))


def _skewed(grid: Array, key: Key) -> Array:
    """As if one of the four sides were further away, or one of the corners."""
    which, size = jax.random.split(key)
    amount = SKEW * jax.random.uniform(size)
    corners = jnp.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) / 2
    kind = jax.random.randint(which, (), 0, 8)
    ends = (jnp.arange(2) + kind) % 4
    inward = corners[ends[::-1]] - corners[ends]
    moves = jnp.where(kind < 4, jnp.ones(2), jnp.array([1.0, 0.0]))
    target = corners.at[ends].add(amount * moves[:, None] * inward)
    return _through(grid, corners, target)


def _through(grid: Array, corners: Array, target: Array) -> Array:
    """The projective map that takes four corners to four others."""
    rows = []
    for place in range(4):
        (u, v), (s, t) = corners[place], target[place]
        one, zero = jnp.ones(()), jnp.zeros(())
        rows.append(jnp.stack([u, v, one, zero, zero, zero, -s * u, -s * v]))
        rows.append(jnp.stack([zero, zero, zero, u, v, one, -t * u, -t * v]))
    found = jnp.linalg.solve(jnp.stack(rows), target.ravel())
    matrix = jnp.append(found, 1.0).reshape(3, 3)
    lifted = jnp.concatenate([grid, jnp.ones_like(grid[:1])])
    above, left, depth = jnp.einsum("ab,bhw->ahw", matrix, lifted)
    return jnp.stack([above, left]) / depth[None]


def _bent(grid: Array, key: Key) -> Array:
    """The corners of a grid move at random, what is between them with them."""
    inner = jax.random.uniform(key, (2, GRID - 1, GRID - 1), minval=-BEND, maxval=BEND)
    corners = jnp.pad(inner, ((0, 0), (1, 1), (1, 1)))
    places = list((grid + 0.5) * GRID)
    shift = [
        jax.scipy.ndimage.map_coordinates(c, places, 1, "nearest") for c in corners
    ]
    return grid + jnp.stack(shift)
