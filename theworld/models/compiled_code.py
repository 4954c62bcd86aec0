"""Which compiled code this process may take from PyTorch's cache."""

from __future__ import annotations

import torch


def tag_compiled_code(tag: str) -> None:
    """Take none that was compiled without `tag`, the name of a change to how code is written."""
    config = torch.compiler.config
    config.cache_key_tag = "-".join(filter(None, [config.cache_key_tag, tag]))
