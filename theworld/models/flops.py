"""Useful floating-point operations of a training batch: a function of the config, of what trains and of lengths.

Useful is what the mathematics needs. A frozen matrix has no weight gradient; nothing has an input gradient where no
gradient has to go; attention counts the pairs the rule lets through, the head the targets. Padding counts nothing, and
neither does what is computed a second time (recomputed layers, the scores in the backward pass of flash attention).
Matrix products and convolutions are counted, a multiplication and its addition as two; element-wise work is not, but
`elementwise_bytes` says what it must at least read and write.

Rows that no target can depend on (`live_rows.py`) are taken off only where the geometry says that they are left out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from itertools import pairwise

from theworld.models.configuration import TheWorldConfig, VaeConfig
from theworld.types import Batch


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How much a batch holds: plain numbers, known on the host.

    Attributes:
        document_lengths: Tokens of each document, placeholders included, padding not.
        targets: Target tokens.
        images: Images among the tokens.
        frames: World frames among the tokens.
        live_images: Images that SigLIP encodes; the others' features are given.
        live_frames: Frames that the world encoder encodes; the others' latents are given.
        world_tokens: World tokens of each frame, where they differ; empty when all have the model's.
        live_rows: Rows that go on behind the attention of each of the last layers, first layer first, rounded up as
            `live_rows.py` does; empty when all do.
    """

    document_lengths: tuple[int, ...]
    targets: int
    images: int = 0
    frames: int = 0
    live_images: int = 0
    live_frames: int = 0
    world_tokens: tuple[int, ...] = ()
    live_rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Passes:
    """Floating-point operations of one part: forward, backward towards its inputs, backward towards its weights."""

    forward: int = 0
    input_gradient: int = 0
    weight_gradient: int = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def total(self) -> int:
        """Of all three."""
        return self.forward + self.input_gradient + self.weight_gradient


@dataclass(frozen=True, kw_only=True)
class UsefulFlops:
    """Floating-point operations of one training batch by part.

    Attributes:
        language: Matrices of the language model's layers.
        attention: Its attention; both products of scores and values, in the backward pass four.
        head: Hidden states of the targets to the vocabulary.
        vision: Matrices and the patch convolution of SigLIP.
        vision_attention: Its attention.
        image_projector: Gemma's projection of image features.
        world_encoder: Convolutions of the Wan encoder over single frames.
        world_encoder_attention: Its attention.
        world_projector: Latents to world tokens.
    """

    language: Passes
    attention: Passes
    head: Passes
    vision: Passes
    vision_attention: Passes
    image_projector: Passes
    world_encoder: Passes
    world_encoder_attention: Passes
    world_projector: Passes

    @property
    def passes(self) -> Passes:
        """Sum of the parts."""
        return sum((getattr(self, f.name) for f in fields(self)), Passes())

    @property
    def total(self) -> int:
        """Of all parts and passes."""
        return self.passes.total


def geometry_of(batch: Batch) -> Geometry:
    """Geometry of a batch, from its shapes and what the collator noted: no tensor is read, on whatever device it lies.

    Raises:
        ValueError: The batch does not say how long its documents are.
    """
    if not batch.document_lengths:
        raise ValueError(
            "found a batch without document_lengths, expected the length of each of its samples; make batches with "
            "theworld.data.packing.collator, or fill the field in"
        )
    live_images, live_frames = len(batch.pixel_values), len(batch.world_pixel_values)
    live = batch.live_rows
    return Geometry(
        document_lengths=batch.document_lengths,
        targets=batch.num_target_tokens,
        images=live_images if batch.image_features is None else len(batch.image_features),
        frames=live_frames if batch.world_latents is None else len(batch.world_latents),
        live_images=live_images,
        live_frames=live_frames,
        world_tokens=batch.world_token_counts,
        live_rows=() if live is None else (*(len(level.rows) for level in live.levels), len(live.target_rows)),
    )


def useful_flops(config: TheWorldConfig, geometry: Geometry, trained: Collection[str]) -> UsefulFlops:
    """Work of one forward and backward pass.

    Args:
        config: Of the model.
        geometry: Of the batch.
        trained: Names of the parameter groups that train (`parameter_groups.GROUPS`).
    """
    text, flows = config.get_text_config(), gradient_flows(geometry, trained)
    queries = text.num_attention_heads * text.head_dim
    keys = text.num_key_value_heads * text.head_dim
    entering, going_on = _layer_rows(config, geometry)
    matrices = entering * 2 * (queries + keys) + going_on * 3 * text.intermediate_size
    pairs, head = attention_pairs(config, geometry), 2 * geometry.targets * text.hidden_size * text.vocab_size
    vision, vision_attention = _siglip(config, geometry.live_images, trains="vision" in trained)
    encoder, encoder_attention = _world_encoder(config, geometry.live_frames, trains="world_encoder" in trained)
    image_projector = 2 * geometry.images * config.gemma_config.mm_tokens_per_image * text.hidden_size
    image_projector *= config.gemma_config.vision_config.hidden_size
    return UsefulFlops(
        language=_product(2 * matrices * text.hidden_size, flows, trains="language" in trained),
        attention=_attention(4 * pairs * queries, flows),
        head=_product(head, flows, trains="language" in trained),
        vision=vision,
        vision_attention=vision_attention,
        # The norm before this projection trains with it, so a gradient goes through it even to given features.
        image_projector=_product(image_projector, "vision" in trained, trains="vision" in trained),
        world_encoder=encoder,
        world_encoder_attention=encoder_attention,
        world_projector=_world_projector(config, geometry, trained),
    )


def gradient_flows(geometry: Geometry, trained: Collection[str]) -> bool:
    """Whether anything that trains lies at or before the language model's input, so that its layers pass gradients."""
    before_images = geometry.images > 0 and "vision" in trained
    before_worlds = geometry.frames > 0 and "world_projector" in trained
    return "language" in trained or before_images or before_worlds or _encoder_trains(geometry, trained)


def attention_pairs(config: TheWorldConfig, geometry: Geometry) -> int:
    """Pairs of query and key that the rule (`attention/rule.py`) lets through, summed over the layers."""
    text, documents = config.get_text_config(), geometry.document_lengths
    kinds, trimmed = list(text.layer_types), max(len(geometry.live_rows) - 1, 0)
    image, worlds = config.gemma_config.mm_tokens_per_image, _world_tokens(config, geometry)
    pairs = 0
    for kind in kinds[: len(kinds) - trimmed]:
        window = text.sliding_window if kind == "sliding_attention" else None
        pairs += sum(_causal_pairs(length, window) for length in documents)
        pairs += geometry.images * image * (image - 1) // 2  # ahead in the same image, however far
        if config.bidirectional_world:
            pairs += sum(_causal_pairs(world, window) - world for world in worlds)
    # Of the rows that enter the last layers it is known how many there are, not whose: as many of every document.
    for rows in geometry.live_rows[:-1]:
        pairs += len(documents) * _causal_pairs(rows // len(documents), text.sliding_window)
    return pairs


def elementwise_bytes(config: TheWorldConfig, geometry: Geometry, trained: Collection[str]) -> int:
    """Least traffic of the language model's element-wise work in bfloat16, in bytes, if every operation is one kernel.

    With D the hidden size, F that of the MLP and Q the queries and keys of a token, a layer's forward pass reads and
    writes 4 norms (2D each), 2 residual sums (3D), the norms and rotation of queries and keys (2Q) and the gated
    activation (3F); its backward pass 4 norms (3D), 2 residual sums (3D), the sums of the gradients of queries, keys
    and values and of gate and up (9D in all), the norms and rotation (3Q) and the gated activation (5F). That makes
    400 KB a token and layer at 4B's sizes. Towers, optimizer and cross-entropy are left out.
    """
    text = config.get_text_config()
    rotated = (text.num_attention_heads + text.num_key_value_heads) * text.head_dim
    values = 14 * text.hidden_size + 2 * rotated + 3 * text.intermediate_size
    if gradient_flows(geometry, trained):
        values += 27 * text.hidden_size + 3 * rotated + 5 * text.intermediate_size
    return 2 * values * _layer_rows(config, geometry)[1]


def _layer_rows(config: TheWorldConfig, geometry: Geometry) -> tuple[int, int]:
    """Rows that enter a layer, and that go on behind its attention, both summed over the layers."""
    tokens = sum(geometry.document_lengths)
    layers = config.get_text_config().num_hidden_layers
    live = [min(rows, tokens) for rows in geometry.live_rows]  # a level is rounded up
    going_on = [tokens] * (layers - len(live)) + live
    return sum([tokens, *going_on[:-1]]), sum(going_on)


def _causal_pairs(length: int, window: int | None) -> int:
    reach = length if window is None else min(length, window)
    return reach * (reach + 1) // 2 + (length - reach) * reach


def _product(forward: int, flows: bool, *, trains: bool) -> Passes:
    return Passes(forward, forward if flows else 0, forward if trains else 0)


def _attention(forward: int, flows: bool) -> Passes:
    """Two products forward; backward one for each of the gradients of values, probabilities, queries and keys."""
    return Passes(forward, 2 * forward if flows else 0, 0)


def _siglip(config: TheWorldConfig, images: int, *, trains: bool) -> tuple[Passes, Passes]:
    """Products, and attention, of `images` images."""
    vision = config.gemma_config.vision_config
    patches, width, layers = (vision.image_size // vision.patch_size) ** 2, vision.hidden_size, vision.num_hidden_layers
    convolution = 2 * images * patches * vision.num_channels * vision.patch_size**2 * width
    matrices = 2 * images * patches * layers * width * (4 * width + 2 * vision.intermediate_size)
    products = _product(convolution, False, trains=trains) + _product(matrices, trains, trains=trains)
    return products, _attention(4 * images * patches**2 * width * layers, trains)


def _world_tokens(config: TheWorldConfig, geometry: Geometry) -> tuple[int, ...]:
    """World tokens of each frame."""
    return geometry.world_tokens or (config.num_world_tokens,) * geometry.frames


def _encoder_trains(geometry: Geometry, trained: Collection[str]) -> bool:
    return geometry.live_frames > 0 and "world_encoder" in trained


def _world_projector(config: TheWorldConfig, geometry: Geometry, trained: Collection[str]) -> Passes:
    tokens, hidden = sum(_world_tokens(config, geometry)), config.hidden_size
    width = config.latent_channels if config.world_projection_mode == "spatial" else config.latent_cells
    trains, further = "world_projector" in trained, _encoder_trains(geometry, trained)
    projection = _product(2 * tokens * width * hidden, further, trains=trains)
    if config.projection_architecture == "mlp":
        projection += _product(2 * tokens * hidden * hidden, trains or further, trains=trains)
    return projection


def _world_encoder(config: TheWorldConfig, frames: int, *, trains: bool) -> tuple[Passes, Passes]:
    """Products, and attention, of `frames` single frames, whose convolutions are two-dimensional (`FrameConv3d`)."""
    first, others, attention = _convolutions(config.vae_config, config.world_image_size)
    products = _product(2 * frames * first, False, trains=trains) + _product(2 * frames * others, trains, trains=trains)
    return products, _attention(2 * frames * attention, trains)


def _convolutions(vae: VaeConfig, side: int) -> tuple[int, int, int]:
    """Multiplications of the first convolution, of all others, and of attention, for one frame of `side` pixels."""
    base, latents = vae.get("base_dim", 96), 2 * vae.get("z_dim", 16)  # mean and variance
    widths = [base * factor for factor in (1, *vae.get("dim_mult", [1, 2, 4, 4]))]
    cells, scale = side * side, 1.0
    first, others, attention = 9 * cells * vae.get("in_channels", 3) * base, 0, 0
    for level, (narrow, wide) in enumerate(pairwise(widths)):
        for block in range(vae.get("num_res_blocks", 2)):
            others += cells * _residual_block(wide if block else narrow, wide)
            if scale in vae.get("attn_scales", []):
                others += cells * 4 * wide * wide
                attention += 2 * cells * cells * wide
        if level < len(widths) - 2:
            cells, scale = cells // 4, scale / 2
            others += 9 * cells * wide * wide
    others += cells * (2 * _residual_block(wide, wide) + 4 * wide * wide)
    attention += 2 * cells * cells * wide
    return first, others + cells * (9 * wide * latents + latents * latents), attention


def _residual_block(narrow: int, wide: int) -> int:
    """Multiplications a cell: two convolutions of 3 × 3, and one of 1 × 1 beside them where the width changes."""
    return 9 * narrow * wide + 9 * wide * wide + (narrow * wide if narrow != wide else 0)
