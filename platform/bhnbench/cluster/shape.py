"""How large the nodes of a cluster should be for a sweep, and how many of them help."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bhnbench.sweep.document import Sweep

RUNS_A_NODE = 8  # where no GPU decides
MOST_NODES = 4  # what somebody who said nothing may be charged for
RUN_GIB = 2  # of memory: torch and small networks
RAY_GIB = 2  # of memory: Ray's own processes on every node


@dataclass(frozen=True)
class Shape:
    """Equal nodes for a sweep."""

    runs: int  # at a time on a node
    cpus: int
    gpus: int
    memory_gib: int
    n_nodes: int


def shape_of(sweep: Sweep) -> Shape:
    """Nodes that runs of this sweep fill without a rest, no more than it has runs for."""
    cpu, gpu = sweep.resources.cpu, sweep.resources.gpu
    gpus = math.ceil(gpu)
    runs = math.floor(gpus / gpu + 1e-9) if gpu else RUNS_A_NODE
    n_runs = sum(sweep.trials_of(study) + sweep.n_seeds for study in sweep.studies)
    return Shape(
        runs=runs,
        cpus=runs * cpu,
        gpus=gpus,
        memory_gib=runs * RUN_GIB + RAY_GIB,
        n_nodes=min(MOST_NODES, math.ceil(n_runs / runs)),
    )
