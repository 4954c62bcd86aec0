"""One hash of all that a frozen network computes with: settings, weights and buffers, in their own types."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import nn
from torch.distributed.tensor import DTensor


def weights_sha256(module: nn.Module, settings: Mapping[str, object]) -> str:
    """Hexadecimal sha256; reads every weight once, wherever it is.

    Args:
        module: Its parameters and buffers count, by name, type, shape and content.
        settings: What the weights do not show, as JSON can write it.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()], key=lambda named: named[0]):
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        content = whole.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(content.numpy().data)
    return digest.hexdigest()
