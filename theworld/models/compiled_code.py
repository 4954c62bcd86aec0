"""What keeps code that this process would write otherwise away from it."""

from __future__ import annotations

import torch


def tag_compiled_code(tag: str) -> None:
    """Add to what PyTorch's cache of compiled code is asked for, so that it gives none that was written otherwise."""
    config = torch.compiler.config
    config.cache_key_tag = "-".join(filter(None, [config.cache_key_tag, tag]))
