"""A seed is a hash of named components, so that no two streams are equal by accident."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(**components: str | int) -> int:
    """A 63-bit seed that depends on every component and its name."""
    text = json.dumps(components, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_rng(**components: str | int) -> torch.Generator:
    """A CPU random stream seeded by ``derive_seed``."""
    import torch

    return torch.Generator().manual_seed(derive_seed(**components))
