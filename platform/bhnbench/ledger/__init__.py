"""The ledger: the SQL database of sweeps, studies, trials, runs and scores. The only truth."""
