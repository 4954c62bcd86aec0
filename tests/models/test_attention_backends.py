"""Every backend against the reference: outputs and gradients of one attention layer, and of the whole model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from theworld.models.attention import flash4
from theworld.models.attention.backends import attention, check_backend
from theworld.models.attention.flash import FlashLayout, flash_kernel, flash_layout
from theworld.models.attention.flex import flex_kernel, flex_mask
from theworld.models.attention.sdpa import sdpa_mask
from theworld.types import PADDING_DOCUMENT, TokenType

TEXT, IMAGE, WORLD = TokenType.TEXT, TokenType.IMAGE, TokenType.WORLD
IMAGE_TOKENS = 4
HEADS, KEY_HEADS, SIZE = 4, 2, 8


def random_rows(generator: torch.Generator, *, rows: int, length: int, images: int) -> tuple[Tensor, Tensor]:
    """document_ids and token_type_ids of packed rows: documents with world tokens, up to `images` images, padding."""
    all_documents, all_types = [], []

    def upto(high: int) -> int:
        return int(torch.randint(1, high + 1, (), generator=generator))

    for _ in range(rows):
        documents: list[int] = []
        types: list[int] = []
        number = 0
        while True:
            one = [TEXT] + [WORLD] * upto(6)
            for _ in range(upto(images + 1) - 1):
                one += [TEXT] * upto(3) + [IMAGE] * IMAGE_TOKENS
            one += [TEXT] * upto(5)
            if len(documents) + len(one) > length:
                break
            documents += [number] * len(one)
            types += one
            number += 1
        padding = length - len(documents)
        all_documents.append(documents + [PADDING_DOCUMENT] * padding)
        all_types.append(types + [TEXT] * padding)
    return torch.tensor(all_documents), torch.tensor(all_types)


def layout_of(documents: Tensor, types: Tensor, window: int | None, *, images: int = 2) -> FlashLayout:
    return flash_layout(
        documents,
        types,
        sliding_window=window,
        num_images=int((types == IMAGE).sum()) // IMAGE_TOKENS,
        image_tokens=IMAGE_TOKENS,
        max_documents=documents.numel(),
        images_per_document=images,
    )


def states(generator: torch.Generator, rows: int, length: int) -> list[Tensor]:
    return [
        torch.randn(rows, heads, length, SIZE, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]


def reference(qkv: list[Tensor], documents: Tensor, types: Tensor, window: int | None) -> Tensor:
    mask = sdpa_mask(documents, types, sliding_window=window, bidirectional_world=False)
    return scaled_dot_product_attention(*qkv, attn_mask=mask, scale=0.3, enable_gqa=True)


@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("images", [0, 1, 2])
def test_the_operators_keep_what_they_promise(window: int | None, images: int) -> None:
    """PyTorch's own check: no input is written to or given back, and shapes are those that compilation reckons with."""
    generator = torch.Generator().manual_seed(images)
    documents, types = random_rows(generator, rows=2, length=40, images=images)
    flat = [state.transpose(1, 2).flatten(0, 1).detach() for state in states(generator, 2, 40)]
    layout = layout_of(documents, types, window)
    tensors = layout[: FlashLayout._fields.index("length")]
    sizes = (layout.length, layout.window, 0.3, layout.kernel)
    attend, backward = torch.ops.theworld.document_attention, torch.ops.theworld.document_attention_backward
    leaves = [state.clone().requires_grad_() for state in flat]
    torch.library.opcheck(attend.default, (*leaves, *tensors, *sizes))
    outputs = attend(*flat, *tensors, *sizes)
    torch.library.opcheck(backward.default, (torch.ones_like(outputs[0]), *flat, *outputs, *tensors, *sizes))


@pytest.mark.parametrize("window", [None, 3, 9, 100])
@pytest.mark.parametrize("images", [0, 1, 2])
def test_flash_decomposition_equals_the_rule(window: int | None, images: int) -> None:
    generator = torch.Generator().manual_seed(images)
    for _ in range(4):
        documents, types = random_rows(generator, rows=2, length=60, images=images)
        equals_the_rule(generator, documents, types, layout_of(documents, types, window), window)


def equals_the_rule(
    generator: torch.Generator, documents: Tensor, types: Tensor, layout: FlashLayout, window: int | None
) -> None:
    """Outputs and gradients are those of the mask tensor."""
    qkv = states(generator, *documents.shape)
    expected = reference(qkv, documents, types, window)
    found = flash_kernel(*qkv, layout, scale=0.3)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    grad = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(found, qkv, grad), torch.autograd.grad(expected, qkv, grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("window", [6, 15, 19, 33, 40])
def test_with_one_image_a_document_blocks_or_all_keys_equal_the_rule(window: int) -> None:
    """Documents of 30 and 6 tokens: in blocks, and, where two blocks are no fewer than 36 keys, in all of them.

    The window hides some of those from most rows of the first image.
    """
    documents = torch.tensor([[0] * 30 + [1] * 6])
    types = torch.full_like(documents, TEXT)
    types[0, 20:24] = types[0, 31:35] = IMAGE
    layout = layout_of(documents, types, window, images=1)
    assert len(layout.image_keys) == {6: 18, 15: 0, 19: 0, 33: 0, 40: 0}[window]
    equals_the_rule(torch.Generator().manual_seed(window), documents, types, layout, window)


def test_flash_comparison_can_fail() -> None:
    """Control: without the image step the same rows differ."""
    generator = torch.Generator().manual_seed(0)
    documents, types = random_rows(generator, rows=2, length=60, images=1)
    qkv = states(generator, 2, 60)
    blind = flash_kernel(*qkv, layout_of(documents, torch.zeros_like(types), None), scale=0.3)
    difference = (blind - reference(qkv, documents, types, None)).abs().amax(dim=(1, 3))  # (B, T)
    assert difference[types == IMAGE].max() > 0.1
    assert difference[types != IMAGE].max() < 1e-10


def test_moving_documents_keeps_every_shape() -> None:
    """What would recompile: the layouts of two packings differ in values only."""
    one = torch.tensor([[0] * 20 + [1] * 40]), torch.tensor([[TEXT] * 5 + [IMAGE] * 4 + [TEXT] * 51])
    other = (
        torch.tensor([[0] * 30 + [1] * 25 + [PADDING_DOCUMENT] * 5]),
        torch.tensor([[TEXT] * 40 + [IMAGE] * 4 + [TEXT] * 16]),
    )
    for window in (None, 8):
        layouts = [
            flash_layout(*row, sliding_window=window, num_images=1, image_tokens=IMAGE_TOKENS, max_documents=6)
            for row in (one, other)
        ]
        shapes = [[part.shape if isinstance(part, Tensor) else part for part in layout] for layout in layouts]
        assert shapes[0] == shapes[1]
        assert layouts[0].document_ends.tolist() == [0, 20, 60, 60, 60, 60, 60]
        assert layouts[1].document_ends.tolist() == [0, 30, 55, 60, 60, 60, 60]
        assert layouts[1].key_ends.tolist() == ([[0, 30, 44, 60]] if window is None else [[0, 0, 11, 11]])
        assert layouts[1].image_keys.tolist() == ([] if window is None else list(range(33, 44)))
        assert layouts[1].image_ends.tolist() == [0, 0, 4, 4]


def test_keys_before_the_first_token_have_no_query() -> None:
    """An image that stands less than a window into its document reads a block that begins before the document."""
    documents = torch.tensor([[0] * 20])
    types = torch.tensor([[TEXT] * 2 + [IMAGE] * 4 + [TEXT] * 14])
    layout = flash_layout(documents, types, sliding_window=8, num_images=1, image_tokens=IMAGE_TOKENS, max_documents=2)
    assert layout.image_keys.tolist() == [0] * 5 + list(range(6))
    assert layout.key_ends.tolist() == [[0, 5, 11, 11]]


@pytest.mark.parametrize(("length", "images", "cut"), [(23, 2, True), (22, 2, False), (22, 1, True)])
def test_blocks_are_cut_out_where_they_save_keys(length: int, images: int, cut: bool) -> None:
    """Two blocks of 11 keys are no fewer than a row of 22: there the second call reads all, within its window."""
    documents = torch.tensor([[0] * 10 + [1] * (length - 10)])
    types = torch.full_like(documents, TEXT)
    for first in (4, 15)[:images]:
        types[0, first : first + IMAGE_TOKENS] = IMAGE
    layout = flash_layout(
        documents, types, sliding_window=8, num_images=images, image_tokens=IMAGE_TOKENS, max_documents=3
    )
    assert len(layout.image_keys) == (11 * images if cut else 0)
    assert layout.window == 8


def test_more_images_a_document_than_announced_is_an_error() -> None:
    documents = torch.zeros(1, 20, dtype=torch.int64)
    types = torch.tensor([[TEXT, *[IMAGE] * 4, TEXT, *[IMAGE] * 4, *[TEXT] * 10]])
    with pytest.raises(RuntimeError, match="more than 1 images a document"):
        layout_of(documents, types, None, images=1)
    layout_of(documents, types, None, images=2)


def test_more_documents_than_room_is_an_error() -> None:
    documents = torch.arange(8)[None]
    with pytest.raises(RuntimeError, match="more than 4 documents"):
        flash_layout(
            documents, torch.zeros_like(documents), sliding_window=None, num_images=0, image_tokens=4, max_documents=4
        )


@pytest.mark.parametrize("bidirectional_world", [False, True])
@pytest.mark.parametrize("window", [None, 9])
def test_flex_equals_the_rule(window: int | None, bidirectional_world: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    documents, types = random_rows(generator, rows=2, length=60, images=2)
    qkv = [s.detach() for s in states(generator, 2, 60)]
    rule = {"sliding_window": window, "bidirectional_world": bidirectional_world}
    expected = scaled_dot_product_attention(
        *qkv, attn_mask=sdpa_mask(documents, types, **rule), scale=0.3, enable_gqa=True
    )
    found = flex_kernel(*qkv, flex_mask(documents, types, **rule), scale=0.3)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_unknown_and_unfit_backends_are_refused() -> None:
    with pytest.raises(ValueError, match="found attention backend 'fast', expected one of"):
        check_backend("fast", bidirectional_world=False)
    with pytest.raises(ValueError, match="expected causal world tokens"):
        check_backend("flash", bidirectional_world=True)
    check_backend("flex", bidirectional_world=True)


def test_flash4_without_its_package_is_refused_where_there_is_a_gpu(monkeypatch) -> None:
    check_backend("flash4", bidirectional_world=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(flash4.importlib.util, "find_spec", lambda name: None)
    flash4.check_installed.cache_clear()
    with pytest.raises(ValueError, match="without the package flash-attn-4.*theworld\\[flash4\\]"):
        check_backend("flash4", bidirectional_world=False)


@pytest.mark.parametrize("backend", ["sdpa", "flash", "flex"])
def test_autocast_lowers_float32_states_in_every_backend(backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    documents, types = random_rows(generator, rows=1, length=40, images=1)
    qkv = [state.detach().float() for state in states(generator, 1, 40)]
    rule = {"sliding_window": None, "bidirectional_world": False}
    mask = {
        "sdpa": lambda: sdpa_mask(documents, types, **rule),
        "flex": lambda: flex_mask(documents, types, **rule),
        "flash": lambda: layout_of(documents, types, None),
    }[backend]()
    module = torch.nn.Module()
    module.num_key_value_groups = HEADS // KEY_HEADS
    assert attention(module, *qkv, mask, scaling=0.3)[0].dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(module, *qkv, mask, scaling=0.3)[0].dtype == torch.bfloat16
