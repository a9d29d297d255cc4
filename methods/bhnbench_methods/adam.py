"""Adam on one flat tensor, without the bookkeeping of ``torch.optim``."""

from __future__ import annotations

import torch
from torch.optim.adam import adam


class Adam:
    """Adam (Kingma and Ba, 2015) with the usual constants, in torch's fused kernel.

    ``torch.optim.Adam.step`` takes longer than the kernel itself on a small network.
    """

    def __init__(self, flat: torch.Tensor, grad: torch.Tensor) -> None:
        self.flat, self.grad = [flat], [grad]
        self.means = [torch.zeros_like(flat)]
        self.squares = [torch.zeros_like(flat)]
        self.steps = [torch.zeros((), device=flat.device)]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move ``flat`` against ``grad``."""
        adam(
            self.flat,
            self.grad,
            self.means,
            self.squares,
            [],
            self.steps,
            foreach=False,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
