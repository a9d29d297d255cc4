"""Figures drawn from the tables of many runs: outcomes by method label, one outcome a seed.

Nothing here touches matplotlib's global state, and importing a module does not import it.
"""
