"""One script per claim of a paper: `python -m experiments.NAME --help`."""
