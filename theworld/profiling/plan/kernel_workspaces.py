"""What kernels take inside, which no shape of a result shows: read off their sources.

L tokens of a batch · H query heads · G key heads · d head size · O, K sides of a matrix
"""

from __future__ import annotations

from torch import Tensor
from torch.fx import Node


def workspace_bytes(node: Node) -> int:
    """Bytes while `node` runs, beside what it reads and gives; 0 for what needs none or little."""
    name = getattr(node.target, "_schema", None)
    work = _WORKSPACES.get(name.name if name is not None else "")
    return 0 if work is None else work([read.meta["val"] for read in node.all_input_nodes])


def _attention(inputs: list[Tensor]) -> int:
    """The rows of images are put in place in a copy of the result (`attention/flash_op.py`)."""
    query, image_rows = inputs[0], inputs[4]
    return _bytes(query) + 3 * len(image_rows) * _bytes(query[:1]) if len(image_rows) else 0


def _attention_backward(inputs: list[Tensor]) -> int:
    """FlashAttention-2's backward pass with grouped heads, and a copy of the gradient without rows of images.

    It adds up the gradient of queries in float32[L, H, d], and makes those of keys and values a query head each,
    2 × [L, H, d], before it sums them over the group (`mha_varlen_bwd` in PyTorch's `flash_api.cpp`).
    """
    gradient, query, key = inputs[:3]
    grouped = 2 * _bytes(query) if key.shape[1] != query.shape[1] else 0
    return _bytes(gradient) + 4 * query.numel() + grouped


def _int8(inputs: list[Tensor]) -> int:
    """The matrix [O, K] in the type of the activations (`models/low_bit.py`)."""
    activations, matrix = inputs[:2]
    return matrix.numel() * activations.element_size()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


_WORKSPACES = {
    "theworld::document_attention": _attention,
    "theworld::document_attention_backward": _attention_backward,
    "theworld::int8_linear": _int8,
    "theworld::int8_linear_backward": _int8,
}
