"""bhnbench: Bayesian deep-learning methods, compared fairly."""
