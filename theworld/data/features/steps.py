"""Which optimizer steps of a run may take a tower's output from the cache: those before its tower first trains."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

_ALWAYS = sys.maxsize


@dataclass(frozen=True)
class CachedSteps:
    """A pure function of the step, so that worker processes, epochs and resumed runs need no other state.

    Args:
        until: By feature (a key of `theworld.types.FEATURES`): the first optimizer step that trains its tower. Where a
            tower is frozen again after that, its weights are no longer those that the cache was made with.
    """

    until: Mapping[str, int] = field(default_factory=dict)

    def before(self, step: int) -> frozenset[str]:
        """What is read from the cache for optimizer step `step`."""
        return frozenset(feature for feature, until in self.until.items() if step < until)

    def after(self, steps: int) -> CachedSteps:
        """What a validation after so many optimizer steps reads, whichever of its rows it is: the same for all."""
        return CachedSteps({feature: _ALWAYS for feature, until in self.until.items() if steps <= until})


LIVE = CachedSteps()
"""Nothing comes from a cache."""
