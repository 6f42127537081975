"""How fast it is, beside what others use: one script for each table.

python -m benchmarks [--quick] [--json FILE] runs all of them.
"""
