"""Household scenes with exact 3-D truth, written in OSD's own schema."""

from theworld.data.synthetic.scenes import SyntheticPaths, SyntheticScenes

__all__ = ["SyntheticPaths", "SyntheticScenes"]
