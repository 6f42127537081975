"""Mechanisms: JAX, Optax and matfree. They know no paper."""
