"""protojax: can this explanation of a neural network be trusted?

The modules are the namespace: `from protojax import attributions, attacks, metrics`.
Each is loaded when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; nothing is loaded
    from protojax import (
        conformance as conformance,
        contracts as contracts,
        models as models,
    )
    from protojax.mechanisms import (
        ascent as ascent,
        curvature as curvature,
        images as images,
        lowering as lowering,
        ranks as ranks,
        tracing as tracing,
    )
    from protojax.methods import (
        activations as activations,
        attacks as attacks,
        attributions as attributions,
        cladec as cladec,
        generation as generation,
        influence as influence,
        metrics as metrics,
        objectives as objectives,
        prototypes as prototypes,
        srae as srae,
    )
    from protojax.scale import (
        checkpoints as checkpoints,
        compression as compression,
        data as data,
        figures as figures,
        overlays as overlays,
        pages as pages,
        parts as parts,
        report as report,
        sweeps as sweeps,
        training as training,
    )

__version__ = "0.1.0"

_MODULES = {
    # mechanisms: JAX, Optax and matfree; they know no paper
    "tracing": "mechanisms",  # walk and re-emit the traced form of any function
    "lowering": "mechanisms",  # the same function, fast on CPU
    "ascent": "mechanisms",  # the one loop, and the sets it may not leave
    "curvature": "mechanisms",  # second derivatives as products: spectra, systems
    "ranks": "mechanisms",  # ranks with ties, and pairs in order
    "images": "mechanisms",  # transforms, blur, resize, total variation, JPEG
    # methods: one family's mathematics each; one example, pure
    "activations": "methods",  # swap non-linearities, record layers, backward rules
    "attributions": "methods",  # explanations: (score, x) -> [H, W, C]
    "objectives": "methods",  # what an attack climbs
    "attacks": "methods",  # (objective, x) -> Ascent, and the papers' recipes
    "metrics": "methods",  # how far a map moved
    "influence": "methods",  # which training examples a prediction leans on
    "prototypes": "methods",  # this looks like that: ProtoPNet
    "cladec": "methods",  # what a layer knows, as an image decoded from it
    "generation": "methods",  # what a network looks for, as an image
    "srae": "methods",  # explanation networks: a layer in a few x-features
    # models: the only import of Flax
    "models": "",
    # scale: data, devices, disk
    "data": "scale",  # tfds:, folder:, npz: and parts -> NumPy batches
    "compression": "scale",  # JPEG artefacts in data sets, planted and as augmentation
    "parts": "scale",  # birds whose parts are known
    "training": "scale",  # a generator of training steps
    "checkpoints": "scale",  # Orbax
    "sweeps": "scale",  # grids of settings over images, resumable
    "report": "scale",  # rows into numbers with intervals, and tables
    "figures": "scale",  # curves and panels
    "overlays": "scale",  # maps on images, and bars of contributions
    "pages": "scale",  # one HTML file
    "conformance": "",  # known answers, by which any library can be checked
    "contracts": "",  # the types that hold it together
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'protojax' has no attribute {name!r}")
    path = ".".join(p for p in (__name__, _MODULES[name], name) if p)
    return importlib.import_module(path)


def __dir__() -> list[str]:
    return [*(name for name in globals() if name.startswith("__")), *_MODULES]
