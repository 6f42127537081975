"""Methods: the mathematics of one paper or family each, on one example, pure."""
