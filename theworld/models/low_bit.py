"""A frozen language model in 8 bits, for small cards: half the bytes of its matrices, nothing else changed.

The seven projections of every decoder layer are kept as int8 with one scale an output row, and multiplied out into the
activations' type each time they are used. They never train, so the backward pass needs them only for the gradient of
their input, and int8 and scale are all that is kept for it. The products are operators of their own: a compiler that
sees into them would find the same 16-bit matrix in both passes, and keep it in between.

torchao's weight-only int8 (0.18) gives the same gradients, but keeps such a 16-bit copy of every matrix it multiplies
with until the backward pass; with layers that are not computed twice that is more memory than it saves.

    O output rows of a matrix · K inputs
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from theworld.models.autocast import product_dtype

if TYPE_CHECKING:
    from theworld.models.theworld import TheWorld

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Matrices of a decoder layer that are kept in 8 bits: all of them. Embeddings and norms stay as they are."""


class FrozenInt8Linear(nn.Module):
    """`nn.Linear` with its weight rounded to 8 bits; differentiable in its input only.

    Its parameters have other names than a linear layer's, so that none can be loaded as the other.

    Args:
        linear: Whose weight is rounded; it has no bias.

    Attributes:
        int8_weight: int8[O, K], between −127 and 127.
        scale: float[O] of the weight's own type: the largest absolute value of each row over 127.
    """

    int8_weight: nn.Parameter
    scale: nn.Parameter
    in_features: int
    out_features: int

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        if linear.bias is not None:
            raise ValueError("found a linear layer with a bias, expected none: Gemma's projections have none")
        self.out_features, self.in_features = linear.weight.shape
        weight = linear.weight.detach()
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))  # (O, K)
        scale = (wide.abs().amax(dim=1) / 127).to(weight.dtype).clamp(min=torch.finfo(weight.dtype).tiny)  # (O,)
        rounded = (wide / scale.to(wide.dtype)[:, None]).round().to(torch.int8)
        # Parameters, not buffers: DDP sends buffers around in every step.
        self.int8_weight = nn.Parameter(rounded, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """float[..., K] → float[..., O], in the type of the inputs or autocast's."""
        return int8_linear(inputs.to(product_dtype(inputs)), self.int8_weight, self.scale)

    def extra_repr(self) -> str:
        """As `nn.Linear` shows itself."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


def dequantised(int8_weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix that int8[O, K] and float[O] stand for, rounded to `dtype`; float[O, K]."""
    return (int8_weight * scale[:, None]).to(dtype)


@torch.library.custom_op("theworld::int8_linear", mutates_args=())
def int8_linear(inputs: Tensor, int8_weight: Tensor, scale: Tensor) -> Tensor:
    """float[..., K], int8[O, K], float[O] → float[..., O]."""
    return F.linear(inputs, dequantised(int8_weight, scale, inputs.dtype))


@torch.library.custom_op("theworld::int8_linear_backward", mutates_args=())
def int8_linear_backward(gradient: Tensor, int8_weight: Tensor, scale: Tensor) -> Tensor:
    """Gradient of the input: float[..., O], int8[O, K], float[O] → float[..., K]."""
    return gradient @ dequantised(int8_weight, scale, gradient.dtype)


@int8_linear.register_fake
def _(inputs: Tensor, int8_weight: Tensor, scale: Tensor) -> Tensor:
    return inputs.new_empty((*inputs.shape[:-1], int8_weight.shape[0]))


@int8_linear_backward.register_fake
def _(gradient: Tensor, int8_weight: Tensor, scale: Tensor) -> Tensor:
    return gradient.new_empty((*gradient.shape[:-1], int8_weight.shape[1]))


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    return int8_linear_backward(gradient.contiguous(), *ctx.saved_tensors), None, None


int8_linear.register_autograd(_backward, setup_context=_save)


@register_flop_formula([torch.ops.theworld.int8_linear, torch.ops.theworld.int8_linear_backward])
def _flops(given: Any, weight: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Those of the product, either way."""
    rows = torch.Size(given[:-1]).numel()
    return 2 * rows * weight[0] * weight[1]


def quantise_language(model: TheWorld) -> None:
    """Round the projections of every decoder layer to 8 bits, in place and where they are, one after another."""
    for layer in model.gemma.model.language_model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, child in list(part.named_children()):
                if name in PROJECTIONS:
                    setattr(part, name, FrozenInt8Linear(child))


def check_low_bit_base(trained: Collection[str]) -> None:
    """Refuse groups that train, if the language model, whose matrices are rounded, is one of them."""
    if "language" in trained:
        raise ValueError(
            "found low_bit_base=True with the language model among what the stages train, expected it frozen in all of "
            "them: its matrices are rounded to 8 bits. Set model.low_bit_base=false, or train it in a run of its own"
        )


def state_on_true_base(model: TheWorld, base: TheWorld) -> dict[str, Tensor]:
    """Weights of a quantised `model` with the matrices of `base`, from which it was quantised, in their place.

    So an export says what was trained, on the base that it was trained for: rounding belongs to the run, not to it.
    """
    state: dict[str, Tensor] = model.state_dict()
    originals: dict[str, Tensor] = base.state_dict()
    for name, module in model.named_modules():
        if isinstance(module, FrozenInt8Linear):
            del state[f"{name}.int8_weight"], state[f"{name}.scale"]
            state[f"{name}.weight"] = originals[f"{name}.weight"]
    return state
