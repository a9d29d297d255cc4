"""MLflow shows what the ledger knows: a projection, rebuilt from it at any time."""
