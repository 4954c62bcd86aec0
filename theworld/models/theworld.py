"""The fused model: Gemma 3 reads world tokens as it reads image tokens, from placeholders in its sequence.

[BOS][SOW][world × N][EOW]<start_of_turn>user … [image × 256] … text

world frames ── VAE encoder ── projector ──┐
images ── SigLIP ── Gemma's projector ─────┤ into their placeholders
input_ids ── embedding ────────────────────┴── language model ── loss at the targets, or logits

B rows · T tokens of a row · N world tokens of a frame · I images · W world frames · M targets · D hidden size
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from transformers import Cache, Gemma3ForConditionalGeneration, PreTrainedModel
from transformers.utils import ModelOutput

from theworld.models import loading
from theworld.models.attention import backends
from theworld.models.attention.rule import documents, restarting_positions
from theworld.models.configuration import ProjectionArchitecture, ProjectionMode, TheWorldConfig
from theworld.models.cosmos_encoder import CosmosEncoder
from theworld.models.decoder import CACHE, decode, decode_live
from theworld.models.fusion import fuse
from theworld.models.generation import WorldGenerationMixin
from theworld.models.interventions import Intervention
from theworld.models.losses import find_target_positions, target_cross_entropy
from theworld.models.parameter_groups import parameter_groups
from theworld.models.patch_embedding import use_patch_products
from theworld.types import LiveRows, TokenType


@dataclass
class TheWorldOutput(ModelOutput):
    """What one forward returns.

    Attributes:
        loss: float32 scalar, `loss_sum` over the number of targets; `None` without labels.
        loss_sum: float32 scalar, summed cross-entropy of the targets.
        num_target_tokens: Targets of this batch.
        logits: float[B, T or fewer, vocabulary]; with labels only when `logits_to_keep` asks for them.
        cache: The cache, with `use_cache=True`; `past_key_values` with transformers before 5.24.
    """

    loss: Tensor | None = None
    loss_sum: Tensor | None = None
    num_target_tokens: int | None = None
    logits: Tensor | None = None
    if CACHE == "cache":
        cache: Cache | None = None
    else:
        past_key_values: Cache | None = None


class TheWorld(PreTrainedModel, WorldGenerationMixin):
    """Gemma 3 with a world branch.

    Args:
        config: Shape of both halves; the weights are new. `from_pretrained` loads a base or an export.
    """

    config_class = TheWorldConfig
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _keep_in_fp32_modules_strict = ["latents_mean", "latents_std", "target_rms"]

    cosmos_encoder: CosmosEncoder | None

    def __init__(self, config: TheWorldConfig) -> None:
        super().__init__(config)
        if (found := self.config._attn_implementation) != "sdpa":
            raise ValueError(f"found attn_implementation={found!r}, expected 'sdpa'; choose with attention_backend")
        self.gemma = Gemma3ForConditionalGeneration(config.gemma_config)
        use_patch_products(self.gemma.model.vision_tower)
        self.gemma.model.language_model.config._attn_implementation = backends.NAME
        self.attention_backend: backends.AttentionBackend = "sdpa"
        self.intervention: Intervention | None = None  # of an audit
        self.cosmos_encoder = CosmosEncoder.from_config(config) if config.enable_world else None
        self.post_init()
        if self.cosmos_encoder is not None and not self.cosmos_encoder.projector.target_rms.is_meta:
            self.cosmos_encoder.projector.target_rms.fill_(loading.text_rms(self.gemma))

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        cosmos_model: str | None = None,
        enable_world: bool = True,
        dtype: torch.dtype | None = None,
        freeze_gemma_vision: bool = True,
        freeze_gemma_language: bool = True,
        freeze_cosmos_vae: bool = True,
        world_projection_mode: ProjectionMode | None = None,
        projection_architecture: ProjectionArchitecture | None = None,
        world_image_size: int | None = None,
        num_world_steps: int | None = None,
        max_world_steps: int | None = None,
        world_tokens_per_frame: int | None = None,
        world_latent_shape: tuple[int, int] | None = None,
        bidirectional_world: bool | None = None,
        revision: str | None = None,
        cosmos_revision: str | None = None,
    ) -> TheWorld:
        """A model from a Gemma 3 base and a Cosmos VAE, or from our own export. Nothing is ever silently random.

        Args:
            name_or_path: Directory or Hub name of a Gemma 3 base or of an export, or `theworld-tiny`.
            cosmos_model: Directory or Hub name with the world encoder in its subfolder `vae`. Default: the base
                directory if it has one, else `nvidia/Cosmos-Predict2-2B-Video2World`. Not for an export.
            enable_world: Without it the model is Gemma 3, and no world weight is loaded.
            dtype: Of every parameter; default: as the base is stored.
            freeze_gemma_vision: Do not train SigLIP and Gemma's image projector.
            freeze_gemma_language: Do not train the language model.
            freeze_cosmos_vae: Do not train the world encoder.
            world_projection_mode: `spatial` (default) or `channel`.
            projection_architecture: `mlp` (default) or `linear`.
            world_image_size: Side in pixels of the world frame; default 512.
            num_world_steps: Future latent frames; default 0.
            max_world_steps: Largest accepted `num_world_steps`; default 16.
            world_tokens_per_frame: Fewer world tokens a frame; default one a cell. Free to change for an export.
            world_latent_shape: Channels and stride of latents that are not the VAE's; default the VAE's.
            bidirectional_world: World tokens see each other both ways; default False.
            revision: Hub revision of the base or export.
            cosmos_revision: Hub revision of the Cosmos model.

        For an export every unset option is the export's own.
        """
        model = loading.load(
            cls,
            super().from_pretrained,
            name_or_path,
            cosmos_model=cosmos_model,
            enable_world=enable_world,
            dtype=dtype,
            revision=revision,
            cosmos_revision=cosmos_revision,
            options={
                "world_projection_mode": world_projection_mode,
                "projection_architecture": projection_architecture,
                "world_image_size": world_image_size,
                "num_world_steps": num_world_steps,
                "max_world_steps": max_world_steps,
                "world_tokens_per_frame": world_tokens_per_frame,
                "world_latent_shape": world_latent_shape,
                "bidirectional_world": bidirectional_world,
            },
        )
        frozen = {"vision": freeze_gemma_vision, "language": freeze_gemma_language}
        frozen |= {"world_encoder": freeze_cosmos_vae, "world_projector": False}
        for group, parameters in parameter_groups(model).items():
            for _, parameter in parameters:
                parameter.requires_grad_(not frozen[group])
        return model.eval()

    def forward(
        self,
        input_ids: Tensor,
        *,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        world_pixel_values: Tensor | None = None,
        image_features: Tensor | None = None,
        world_latents: Tensor | None = None,
        labels: Tensor | None = None,
        target_positions: Tensor | None = None,
        target_weights: Tensor | None = None,
        live_rows: LiveRows | None = None,
        world_token_counts: tuple[int, ...] = (),
        num_items_in_batch: Tensor | int | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor | None = None,
        return_dict: bool = True,
    ) -> TheWorldOutput:
        """One pass: a packed row, a padded batch, or a decode step.

        Args:
            input_ids: int64[B, T].
            token_type_ids: int64[B, T], values of `TokenType`; default: read off `input_ids`.
            position_ids: int64[B, T]; default: restarting with every document.
            document_ids: int64[B, T], −1 on padding; default: one document a row, padding as `attention_mask` has it.
            attention_mask: int64[B, T], 0 on padding; with a cache int64[B, past + T].
            pixel_values: float[I, 3, H, W] in the order of the image placeholders.
            world_pixel_values: float[W, 3, h, w] in [-1, 1] in the order of the world placeholders.
            image_features: float[I, N, S] in place of `pixel_values`: what `image_features` makes of them.
            world_latents: float[W, C, F, h/8, w/8] in place of `world_pixel_values`: the world encoder's output.
            labels: int64[B, T] aligned with `input_ids`; makes the loss.
            target_positions: int64[M], flat indices of the position before each target; default: found in `labels`.
            target_weights: float32[M], what each target counts in the loss; default: 1.
            live_rows: The rows the last layers compute; default: all of them. Needs labels, and gives no cache.
            world_token_counts: World tokens of each frame, where they differ.
            num_items_in_batch: Divisor of the loss; default: the targets of this batch.
            cache: Cache of the tokens before these.
            past_key_values: The same under its name before transformers 5.24.
            use_cache: Return the cache.
            logits_to_keep: Positions from the end (0: all), or an index of positions. Default: all without labels,
                none with them.
            return_dict: Accepted because `generate` passes it; the answer is a `TheWorldOutput` either way.
        """
        masks_of = partial(self._masks, max_documents=backends.most_documents(input_ids.shape, self.config))
        mask: Tensor | dict[str, backends.Mask] | None
        cache = past_key_values if cache is None else cache
        if cache is not None and cache.get_seq_length() > 0:
            if any(given is not None for given in (pixel_values, world_pixel_values, image_features, world_latents)):
                raise ValueError("found images or frames with a filled cache, expected them in the first pass only")
            embeds, mask = self.get_input_embeddings()(input_ids), attention_mask  # (B, T, D)
        else:
            types = self.token_types(input_ids) if token_type_ids is None else token_type_ids
            document_ids = documents(input_ids, document_ids, attention_mask)
            frames = {"world_pixel_values": world_pixel_values, "world_latents": world_latents}
            seen = {"pixel_values": pixel_values, "image_features": image_features} | frames
            embeds, num_images = fuse(self, input_ids, types, **seen, counts=world_token_counts)  # (B, T, D)
            mask = masks_of(document_ids, types, num_images=num_images)
            position_ids = restarting_positions(document_ids) if position_ids is None else position_ids
        if self.intervention is not None:
            mask = self.intervention.masked(mask, cache=cache, new_tokens=input_ids.shape[1])
        output = TheWorldOutput()
        decoder = self.gemma.model.language_model
        if live_rows is None:
            hidden, cache = decode(decoder, embeds, position_ids, mask, cache=cache, use_cache=bool(use_cache))
            if cache is not None:
                output[CACHE] = cache
        elif self.intervention is not None or logits_to_keep is not None:
            raise ValueError("found live_rows with logits_to_keep or an intervention: they are for training only")
        elif not isinstance(mask, dict) or position_ids is None or labels is None:
            raise ValueError("found live_rows with a cache or without labels: they are for training only")
        else:
            hidden = decode_live(decoder, embeds, position_ids, mask, live_rows, masks_of=masks_of)  # (1, R, D)
        if labels is not None:
            positions = find_target_positions(labels) if target_positions is None else target_positions
            output.num_target_tokens = len(positions)
            output.loss_sum = target_cross_entropy(
                hidden,
                self.gemma.lm_head.weight,
                labels,
                positions,
                target_weights,
                scored_positions=None if live_rows is None else torch.arange(len(positions), device=positions.device),
            )
            items = max(len(positions), 1) if num_items_in_batch is None else num_items_in_batch
            output.loss = output.loss_sum / items
        if labels is None or logits_to_keep is not None:
            output.logits = self.gemma.lm_head(_keep(hidden, 0 if logits_to_keep is None else logits_to_keep))
        return output

    def _masks(
        self, document_ids: Tensor, types: Tensor, *, num_images: int, max_documents: int
    ) -> dict[str, backends.Mask]:
        """The rule for each kind of layer, in the form of the chosen backend."""
        return backends.layer_masks(
            self.attention_backend,
            document_ids,
            types,
            self.config,
            num_images=num_images,
            max_documents=max_documents,
        )

    def token_types(self, input_ids: Tensor) -> Tensor:
        """`token_type_ids` as the placeholders in `input_ids` say; int64[B, T]."""
        types = torch.where(input_ids == self.config.gemma_config.image_token_id, TokenType.IMAGE, TokenType.TEXT)
        if self.config.enable_world:
            types = torch.where(input_ids == self.config.world_token_id, TokenType.WORLD, types)
        return types

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of each group that the model has; tied weights count once."""
        return {group: sum(p.numel() for _, p in members) for group, members in parameter_groups(self).items()}

    def get_input_embeddings(self) -> nn.Module:
        """The scaled text embedding."""
        return self.gemma.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The language-model head, tied to the text embedding."""
        return self.gemma.lm_head

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own initialisation for the world branch; Gemma's parts know theirs."""
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            module.reset_parameters()


def _keep(hidden: Tensor, logits_to_keep: int | Tensor) -> Tensor:
    """The rows whose logits are wanted, by transformers' meaning of `logits_to_keep`."""
    return hidden[:, slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep]
