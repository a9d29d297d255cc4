"""How large the nodes of a cluster should be for a sweep, and how many of them help."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bhnbench.sweep.document import Sweep

RUNS_A_NODE = 8  # where no GPU decides
MOST_NODES = 4  # what somebody who said nothing may be charged for
RUN_GIB = 2  # of memory, for runs that ask for none: torch and small networks
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
    """Nodes that the largest runs of a sweep fill without a rest, no more than it has runs for."""
    asked = [sweep.resources_of(study) for study in sweep.studies]
    cpu, gpu = max(each.cpu for each in asked), max(each.gpu for each in asked)
    memory = max(each.memory or RUN_GIB for each in asked)
    gpus = math.ceil(gpu)
    runs = math.floor(gpus / gpu + 1e-9) if gpu else RUNS_A_NODE
    n_runs = sum(sweep.trials_of(study) + sweep.n_seeds for study in sweep.studies)
    return Shape(
        runs=runs,
        cpus=runs * cpu,
        gpus=gpus,
        memory_gib=math.ceil(runs * memory) + RAY_GIB,
        n_nodes=min(MOST_NODES, math.ceil(n_runs / runs)),
    )
