"""The kernels that exist on a GPU only, against the float32 reference; `pytest -m gpu`."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tests.models.conftest import make_sample
from tests.models.conftest import packed as collated
from tests.tiny import gemma_config, inputs, make_model
from theworld.models.attention.flash import flash_kernel, flash_layout
from theworld.models.attention.flex import flex_kernel, flex_mask
from theworld.models.attention.sdpa import sdpa_mask
from theworld.models.execution import set_execution
from theworld.models.live_rows import plan_live_rows
from theworld.types import PADDING_DOCUMENT, TokenType

pytestmark = pytest.mark.gpu

IMAGE_TOKENS = 64
WINDOW = 200


def packed(*documents: list[tuple[TokenType, int]], length: int) -> tuple[Tensor, Tensor]:
    """One packed row of documents, each a list of (kind, tokens), and padding."""
    types, numbers = [], []
    for number, parts in enumerate(documents):
        for kind, tokens in parts:
            types += [int(kind)] * tokens
            numbers += [number] * tokens
    padding = length - len(types)
    return torch.tensor([numbers + [PADDING_DOCUMENT] * padding]), torch.tensor([types + [0] * padding])


TEXT, IMAGE, WORLD = TokenType.TEXT, TokenType.IMAGE, TokenType.WORLD
ROWS = {
    "two documents, one image each": packed(
        [(TEXT, 2), (WORLD, 500), (TEXT, 5), (IMAGE, 64), (TEXT, 90)],
        [(TEXT, 2), (WORLD, 300), (TEXT, 5), (IMAGE, 64), (TEXT, 77)],
        length=1152,
    ),
    "two images in a document": packed(
        [(TEXT, 30), (IMAGE, 64), (TEXT, 5), (IMAGE, 64), (TEXT, 90)],
        [(WORLD, 256), (IMAGE, 64), (TEXT, 7)],
        length=640,
    ),
    "one image a document, no fewer keys in blocks": packed(
        [(TEXT, 2), (WORLD, 260), (IMAGE, 64), (TEXT, 20)], [(TEXT, 5), (IMAGE, 64), (TEXT, 40)], length=512
    ),
    "no image": packed([(TEXT, 300)], [(TEXT, 211)], length=512),
}


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("backend", ["flash", "flash4", "flex"])
def test_outputs_and_gradients(backend: str, name: str, window: int | None) -> None:
    documents, types = (part.cuda() for part in ROWS[name])
    generator = torch.Generator("cuda").manual_seed(0)
    length = documents.shape[1]
    exact = [
        torch.randn(1, heads, length, 256, generator=generator, device="cuda").bfloat16().float().requires_grad_()
        for heads in (8, 4, 4)
    ]
    rounded = [states.detach().bfloat16().requires_grad_() for states in exact]
    mask = sdpa_mask(documents, types, sliding_window=window, bidirectional_world=False)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = scaled_dot_product_attention(*exact, attn_mask=mask, scale=0.0625, enable_gqa=True)
    found = run(backend, rounded, documents, types, window, images=2 if name.startswith("two images") else 1)
    grad = torch.randn(expected.shape, generator=generator, device="cuda").bfloat16()
    close(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, rounded, grad), torch.autograd.grad(expected, exact, grad.float()), strict=True
    ):
        close(ours, theirs)


@pytest.mark.parametrize("backend", ["sdpa", "flash", "flash4", "flex"])
def test_logits_loss_and_projector_gradients_of_the_model(backend: str) -> None:
    """bfloat16 with every kernel against float32 and the mask tensor: documents, images, padding, rows left out."""
    config = gemma_config(
        head_dim=256,
        num_attention_heads=8,
        num_key_value_heads=4,
        num_hidden_layers=8,
        hidden_size=512,
        sliding_window=40,
        query_pre_attn_scalar=256,
    )
    exact = make_model(gemma_config=config).cuda()
    rounded = deepcopy(exact)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.bfloat16()
    rounded.attention_backend = backend
    set_execution(rounded, compiled=False, recompute="none")
    samples = [make_sample(name, text=60 + 9 * seed, answer=9, seed=seed) for seed, name in enumerate("abc")]
    batch = collated(samples, 384)
    live = plan_live_rows(
        batch.document_ids, batch.token_type_ids, batch.target_positions, config.text_config, image_tokens=4
    )
    given = inputs(batch.to("cuda"), labels=True)
    assert (batch.document_ids == PADDING_DOCUMENT).any()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = exact(**given, logits_to_keep=0)
    found = rounded(**given, logits_to_keep=0)
    real = batch.document_ids.cuda() != PADDING_DOCUMENT
    assert (found.logits.float() - expected.logits)[real].norm() / expected.logits[real].norm() < 1e-2
    trimmed = rounded(**given, live_rows=replace(batch, live_rows=live).to("cuda").live_rows)
    gradients = []
    for model, loss in ((exact, expected.loss), (rounded, found.loss), (rounded, trimmed.loss)):
        assert abs(loss - expected.loss) / expected.loss < 1e-2
        parts = torch.autograd.grad(loss, list(model.cosmos_encoder.projector.parameters()))
        gradients.append(torch.cat([part.flatten().float() for part in parts]))
    for gradient in gradients[1:]:
        assert (gradient - gradients[0]).norm() / gradients[0].norm() < 3e-2


def run(
    backend: str, states: list[Tensor], documents: Tensor, types: Tensor, window: int | None, *, images: int = 1
) -> Tensor:
    if backend == "flex":
        mask = flex_mask(documents, types, sliding_window=window, bidirectional_world=False)
        return flex_kernel(*states, mask, scale=0.0625)
    layout = flash_layout(
        documents,
        types,
        sliding_window=window,
        num_images=int((types == IMAGE).sum()) // IMAGE_TOKENS,
        image_tokens=IMAGE_TOKENS,
        max_documents=6,
        images_per_document=images,
        kernel=backend,
    )
    return flash_kernel(*states, layout, scale=0.0625)


def close(found: Tensor, expected: Tensor) -> None:
    """Within bfloat16's rounding of values and of sums: 1 % of the norm, and no element far off."""
    error = (found.float() - expected).norm() / expected.norm()
    assert error < 1e-2, error
    assert (found.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_the_comparison_can_fail() -> None:
    """Control: a causal image differs by far more than the tolerance."""
    documents, types = (part.cuda() for part in ROWS["two documents, one image each"])
    generator = torch.Generator("cuda").manual_seed(0)
    states = [
        torch.randn(1, heads, documents.shape[1], 256, generator=generator, device="cuda").bfloat16()
        for heads in (8, 4, 4)
    ]
    real = run("flash", states, documents, types, None)
    blind = run("flash", states, documents, torch.zeros_like(types), None)
    with pytest.raises(AssertionError):
        close(blind, real.float())


def test_layouts_are_made_without_waiting_for_the_device() -> None:
    documents, types = (part.cuda() for part in ROWS["two documents, one image each"])
    torch.cuda.set_sync_debug_mode("error")
    try:
        flash_layout(documents, types, sliding_window=None, num_images=2, image_tokens=IMAGE_TOKENS, max_documents=6)
    finally:
        torch.cuda.set_sync_debug_mode("default")
