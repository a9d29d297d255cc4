"""The engine: Ray Tune schedules, Optuna proposes, the ledger remembers."""
