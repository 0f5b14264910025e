"""How good measurements are: metrics, reports, figures, baselines."""
