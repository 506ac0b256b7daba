"""How wide a pass may be: what free memory holds, and what the receptive field takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastglow.errors import EngineError
from fastglow.plan import Plan

WIDEST = 16_384  # places at once: at 256 channels 0.6 GB, and launches cost nothing any more
FIELDS = 8  # or so many receptive fields, where a place is a step and not a mel frame


@dataclass(frozen=True, slots=True)
class Room:
    """Of one model on one device.

    Attributes:
        field: Places (before, after) that a place depends on.
        bytes_per_place: What one more place costs, about.
        device: Whose memory.
    """

    field: tuple[int, int]
    bytes_per_place: int
    device: torch.device

    @classmethod
    def of(cls, plan: Plan, bytes_per_place: int, device: torch.device) -> Room:
        """For a plan, whose places are mel frames where the hop is whole steps, else steps."""
        reach = plan.config.n_flows * plan.halo
        field = plan.config.receptive_field if plan.config.has_phases else (reach, reach)
        return cls(field, bytes_per_place, device)

    @property
    def least(self) -> int:
        """Places of the narrowest pass: half of it is receptive field."""
        return 2 * (sum(self.field) + 32)

    def most(self) -> int:
        """As many places as four fifths of the free memory hold.

        Raises:
            EngineError: They are fewer than the least.
        """
        wanted = max(WIDEST, FIELDS * sum(self.field))
        if self.device.type != "cuda":
            return wanted
        free = int(torch.cuda.mem_get_info(self.device)[0])
        places = int(0.8 * free) // self.bytes_per_place
        if places < self.least:
            raise EngineError(
                f"{free / 1e9:.1f} GB are free on {self.device}; passes of {self.least} places "
                f"need {self._gigabytes} GB: close other programs on the GPU or use --device cpu"
            )
        return int(min(wanted, places // 32 * 32))

    def none_left(self, rows: int, frames: int) -> EngineError:
        """What to raise where not even the narrowest passes find memory."""
        return EngineError(
            f"no memory on {self.device} for {rows} x {frames} frames even in passes of "
            f"{self.least} places ({self._gigabytes} GB); close other programs on the GPU or use "
            "smaller batches"
        )

    @property
    def _gigabytes(self) -> str:
        return f"{self.least * self.bytes_per_place / 1e9:.1f}"
