"""Sweeps: a pure function of one example over a grid of settings and many examples.

Here alone a batch, a device and a file meet: the function becomes one compiled program
per combination of its static settings, examples are spread over the local devices, and
every finished chunk is a Parquet part that a later run finds and leaves alone. Several
processes share the parts among them, and speak to each other through the folder only.
The function itself knows nothing of it.
"""

from protojax.scale.sweeps.planning import Program, outline, plan
from protojax.scale.sweeps.running import grid, run

__all__ = ["Program", "grid", "outline", "plan", "run"]
