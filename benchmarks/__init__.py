"""Figures that anyone can measure again: `python -m benchmarks` writes RESULTS.md and results.json."""
