"""The attention rule against transformers' own masks and against a slow loop that states it again."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma3TextConfig
from transformers.models.gemma3.modeling_gemma3 import create_masks_for_vision_model, get_block_sequence_ids_for_mask

from theworld.models.attention.rule import documents, mask_mod, restarting_positions
from theworld.models.attention.sdpa import sdpa_mask
from theworld.models.decoder import CACHE
from theworld.types import PADDING_DOCUMENT, TokenType

TEXT, IMAGE, WORLD = TokenType.TEXT, TokenType.IMAGE, TokenType.WORLD
WINDOW = 5


def text_config(window: int = WINDOW) -> Gemma3TextConfig:
    config = Gemma3TextConfig(hidden_size=32, num_attention_heads=4, head_dim=8, sliding_window=window)
    config._attn_implementation = "sdpa"
    return config


def sdpa_masks(document_ids, types, config, *, bidirectional_world=False):
    """The reference mask of each kind of layer."""
    windows = {"full_attention": None, "sliding_attention": config.sliding_window}
    return {
        kind: sdpa_mask(document_ids, types, sliding_window=window, bidirectional_world=bidirectional_world)
        for kind, window in windows.items()
    }


def random_types(generator: torch.Generator, batch: int, length: int, kinds: list[int]) -> torch.Tensor:
    """Runs of random kinds and lengths, with text between two runs of the same kind."""
    rows = []
    for _ in range(batch):
        row: list[int] = []
        while len(row) < length:
            kind = kinds[int(torch.randint(len(kinds), (), generator=generator))]
            row += [kind] * int(torch.randint(1, 8, (), generator=generator)) + [TEXT]
        rows.append(row[:length])
    return torch.tensor(rows)


@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_equal_to_transformers(side):
    generator = torch.Generator().manual_seed(0)
    compared = 0
    for _ in range(20):
        batch, length = 3, 24
        types = random_types(generator, batch, length, [TEXT, IMAGE])
        attention_mask = torch.ones(batch, length, dtype=torch.long)
        for row in range(batch):
            padding = int(torch.randint(0, 10, (), generator=generator))
            if side == "left":
                attention_mask[row, :padding] = 0
            elif side == "right":
                attention_mask[row, length - padding :] = 0
        types = types * attention_mask
        theirs = create_masks_for_vision_model(
            config=text_config(),
            inputs_embeds=torch.empty(batch, length, 0),
            attention_mask=attention_mask,
            position_ids=None,
            block_sequence_ids=get_block_sequence_ids_for_mask(types),
            **{CACHE: None},
        )
        document_ids = documents(types, None, attention_mask)
        ours = sdpa_masks(document_ids, types, text_config())
        real = attention_mask.bool()[:, None, :, None].expand(-1, 1, -1, length)
        for kind in ("full_attention", "sliding_attention"):
            assert torch.equal(ours[kind][real], theirs[kind][real])
            compared += int(real.sum())
    assert compared > 10_000


def test_images_are_where_the_rules_differ():
    """Positive control of the test above: the layouts do hold images that change the mask."""
    types = random_types(torch.Generator().manual_seed(0), 3, 24, [TEXT, IMAGE])
    document_ids = torch.zeros_like(types)
    with_images = sdpa_masks(document_ids, types, text_config())["full_attention"]
    without = sdpa_masks(document_ids, torch.zeros_like(types), text_config())["full_attention"]
    assert not torch.equal(with_images, without)


def slow_rule(document_ids: list[int], types: list[int], window: int | None, bidirectional_world: bool) -> torch.Tensor:
    length = len(types)
    mask = torch.zeros(length, length, dtype=torch.bool)
    for q in range(length):
        for k in range(length):
            if document_ids[q] != document_ids[k]:
                continue
            between = range(min(q, k), max(q, k) + 1)
            one_run = all(types[i] == types[q] and document_ids[i] == document_ids[q] for i in between)
            in_image = one_run and types[q] == IMAGE
            in_world = one_run and types[q] == WORLD
            causal_or_image = (k <= q or in_image) and (window is None or q - k < window)
            world = bidirectional_world and in_world and (window is None or abs(q - k) < window)
            mask[q, k] = causal_or_image or world
    return mask


@pytest.mark.parametrize("bidirectional_world", [False, True])
@pytest.mark.parametrize("window", [1, WINDOW, 100])
def test_equal_to_slow_rule(window, bidirectional_world):
    generator = torch.Generator().manual_seed(window)
    for _ in range(5):
        types = random_types(generator, 2, 30, [TEXT, IMAGE, WORLD])
        document_ids = torch.tensor(
            [sorted(torch.randint(0, 4, (30,), generator=generator).tolist()) for _ in range(2)]
        )
        document_ids[document_ids == 3] = PADDING_DOCUMENT
        types[document_ids == PADDING_DOCUMENT] = TEXT
        masks = sdpa_masks(document_ids, types, text_config(window), bidirectional_world=bidirectional_world)
        for row in range(2):
            arguments = (document_ids[row].tolist(), types[row].tolist())
            assert torch.equal(masks["full_attention"][row, 0], slow_rule(*arguments, None, bidirectional_world))
            assert torch.equal(masks["sliding_attention"][row, 0], slow_rule(*arguments, window, bidirectional_world))


def test_world_is_causal_unless_asked():
    types = torch.tensor([[TEXT, WORLD, WORLD, TEXT, WORLD]])
    document_ids = torch.zeros_like(types)
    causal = sdpa_masks(document_ids, types, text_config())["full_attention"][0, 0]
    both = sdpa_masks(document_ids, types, text_config(), bidirectional_world=True)["full_attention"][0, 0]
    assert torch.equal(causal, torch.ones(5, 5, dtype=torch.bool).tril())
    assert (both ^ causal).nonzero().tolist() == [[1, 2]]


def test_padding_sees_itself_and_is_seen_by_no_one():
    document_ids = torch.tensor([[PADDING_DOCUMENT, PADDING_DOCUMENT, 0, 0, 1, PADDING_DOCUMENT]])
    mask = sdpa_masks(document_ids, torch.zeros_like(document_ids), text_config())["full_attention"][0, 0]
    padding = document_ids[0] == PADDING_DOCUMENT
    assert mask.any(dim=1).all()
    assert not mask[~padding][:, padding].any()
    assert not mask[padding][:, ~padding].any()


def test_flex_attention_reads_the_same_rule():
    from torch.nn.attention.flex_attention import create_mask

    types = random_types(torch.Generator().manual_seed(3), 2, 20, [TEXT, IMAGE, WORLD])
    document_ids = torch.tensor([[0] * 12 + [1] * 8, [0] * 15 + [PADDING_DOCUMENT] * 5])
    rule = mask_mod(document_ids, types, sliding_window=WINDOW, bidirectional_world=True)
    flex = create_mask(rule, 2, 1, 20, 20, device="cpu")
    sdpa = sdpa_masks(document_ids, types, text_config(), bidirectional_world=True)["sliding_attention"]
    assert torch.equal(flex, sdpa)


def test_positions_restart_with_each_document():
    document_ids = torch.tensor([[0, 0, 0, 1, 1, PADDING_DOCUMENT], [PADDING_DOCUMENT, PADDING_DOCUMENT, 0, 0, 0, 0]])
    assert restarting_positions(document_ids).tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 0, 1, 2, 3]]
