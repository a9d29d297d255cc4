"""Peak memory of one run in a process that serves many."""

from __future__ import annotations

from pathlib import Path

_MIB = 1024 * 1024


class PeakMemory:
    """Measures the peak since it was made: GPU memory on CUDA, else the process's resident set.

    Linux can set its high-water mark back; elsewhere the resident peak is unknown (None).
    """

    def __init__(self, device: str) -> None:
        self._cuda = device if device.startswith("cuda") else None
        self._known = True
        if self._cuda:
            import torch

            torch.cuda.empty_cache()  # what the last run left is for all that share the GPU
            torch.cuda.reset_peak_memory_stats(self._cuda)
        else:
            try:
                Path("/proc/self/clear_refs").write_text("5")
            except OSError:
                self._known = False

    def peak_mb(self) -> float | None:
        """MiB at the peak."""
        if self._cuda:
            import torch

            return torch.cuda.max_memory_allocated(self._cuda) / _MIB
        if not self._known:
            return None
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        return None
