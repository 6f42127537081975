"""Models: Flax modules and pretrained weights. The only import of Flax."""
