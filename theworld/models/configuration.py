"""Configuration of the fused model: Gemma 3's own config, the VAE's own config, and how the two are joined.

`TheWorldConfig.preset` gives the shapes of `theworld.models.presets`.
"""

from __future__ import annotations

from typing import Literal, TypedDict, Unpack

from transformers import Gemma3Config, PretrainedConfig

from theworld.models.presets import PRESETS
from theworld.world_tokens import tokens_per_frame

ProjectionMode = Literal["spatial", "channel"]
ProjectionArchitecture = Literal["mlp", "linear"]


class VaeConfig(TypedDict, total=False):
    """The fields of diffusers' `AutoencoderKLWan` config; an absent one takes diffusers' default."""

    base_dim: int
    decoder_base_dim: int | None
    z_dim: int
    dim_mult: list[int]
    num_res_blocks: int
    attn_scales: list[float]
    temperal_downsample: list[bool]
    dropout: float
    latents_mean: list[float]
    latents_std: list[float]
    is_residual: bool
    in_channels: int
    out_channels: int
    patch_size: int | None
    scale_factor_temporal: int | None
    scale_factor_spatial: int | None


class ConfigFields(TypedDict, total=False):
    """The fields of `TheWorldConfig`, for callers that pass some of them on."""

    gemma_config: Gemma3Config
    vae_config: VaeConfig
    enable_world: bool
    world_projection_mode: ProjectionMode
    projection_architecture: ProjectionArchitecture
    world_image_size: int
    num_world_steps: int
    max_world_steps: int
    world_tokens_per_frame: int | None
    trained_world_tokens_per_frame: list[int] | None
    world_latent_shape: tuple[int, int] | None
    start_of_world_token_id: int
    world_token_id: int
    end_of_world_token_id: int
    bidirectional_world: bool


_CHOICES = {"world_projection_mode": ("spatial", "channel"), "projection_architecture": ("mlp", "linear")}


class TheWorldConfig(PretrainedConfig):
    """Everything needed to rebuild a `TheWorld` without its weights.

    Args:
        gemma_config: Config of `Gemma3ForConditionalGeneration`, or its dictionary.
        vae_config: Config of diffusers' `AutoencoderKLWan`; a key it lacks takes diffusers' default, which is
            the Cosmos-Predict2 value.
        enable_world: Whether the model has a world branch.
        world_projection_mode: `spatial` makes one token of each latent cell, `channel` one of each latent channel.
        projection_architecture: `mlp` (linear, GELU, linear) or `linear`; `channel` mode has `mlp` only.
        world_image_size: Side in pixels of the square frame the world encoder sees.
        num_world_steps: Future latent frames beside the present one.
        max_world_steps: Largest `num_world_steps` that is accepted.
        world_tokens_per_frame: In spatial mode, to how many tokens the cells of a latent frame are averaged down before
            the projector: a square whose side divides theirs. None: a token a cell.
        trained_world_tokens_per_frame: The numbers it was trained with, where training drew them at random or an export
            is read with another one; None: `world_tokens_per_frame` alone.
        world_latent_shape: Channels of a latent and pixels along one side of its cells, where a world source gives
            others than the VAE: (2048, 16) for the hidden states of Cosmos-Predict2 2B.
        world_source: Fingerprint of what made the latents it was trained on, written by training; None: its own VAE.
        start_of_world_token_id: Id before the world placeholders; required with the world on.
        world_token_id: Id of a world placeholder; required with the world on.
        end_of_world_token_id: Id after the world placeholders; required with the world on.
        bidirectional_world: Let the world tokens of one sample see each other in both directions.
        **kwargs: Fields of every `PretrainedConfig`.
    """

    model_type = "theworld"
    sub_configs = {"gemma_config": Gemma3Config}
    has_no_defaults_at_init = True

    def __init__(
        self,
        *,
        gemma_config: Gemma3Config | dict[str, object] | None = None,
        vae_config: VaeConfig | None = None,
        enable_world: bool = True,
        world_projection_mode: ProjectionMode = "spatial",
        projection_architecture: ProjectionArchitecture = "mlp",
        world_image_size: int = 512,
        num_world_steps: int = 0,
        max_world_steps: int = 16,
        world_tokens_per_frame: int | None = None,
        trained_world_tokens_per_frame: list[int] | None = None,
        world_latent_shape: tuple[int, int] | None = None,
        world_source: dict[str, str] | None = None,
        start_of_world_token_id: int | None = None,
        world_token_id: int | None = None,
        end_of_world_token_id: int | None = None,
        bidirectional_world: bool = False,
        **kwargs: object,
    ) -> None:
        if gemma_config is None:
            raise ValueError(
                "gemma_config is missing: pass a Gemma3Config, or start from TheWorldConfig.preset('tiny')"
            )
        self.gemma_config = Gemma3Config(**gemma_config) if isinstance(gemma_config, dict) else gemma_config
        self.vae_config: VaeConfig = {} if vae_config is None else vae_config
        self.enable_world = enable_world
        self.world_projection_mode = world_projection_mode
        self.projection_architecture = projection_architecture
        self.world_image_size = world_image_size
        self.num_world_steps = num_world_steps
        self.max_world_steps = max_world_steps
        self.world_tokens_per_frame = world_tokens_per_frame
        self.trained_world_tokens_per_frame = trained_world_tokens_per_frame
        self.world_latent_shape = world_latent_shape
        self.world_source = world_source
        self.start_of_world_token_id = start_of_world_token_id
        self.world_token_id = world_token_id
        self.end_of_world_token_id = end_of_world_token_id
        self.bidirectional_world = bidirectional_world
        kwargs.setdefault("tie_word_embeddings", self.gemma_config.tie_word_embeddings)
        super().__init__(**kwargs)
        self._check_gemma()
        if enable_world:
            self._check_world()

    @classmethod
    def preset(cls, name: Literal["tiny", "gemma3-4b"], **overrides: Unpack[ConfigFields]) -> TheWorldConfig:
        """The named shape, with `overrides` of this class's own fields."""
        if name not in PRESETS:
            raise ValueError(f"found preset {name!r}, expected one of {sorted(PRESETS)}")
        return cls(**(PRESETS[name]() | overrides))

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PretrainedConfig:
        """Gemma's language-model config, which `generate` reads to build the cache."""
        return self.gemma_config.get_text_config()

    @property
    def hidden_size(self) -> int:
        """Width of the language model, and so of a world token."""
        return self.gemma_config.text_config.hidden_size

    @property
    def latent_channels(self) -> int:
        """Channels of a latent (16 for Cosmos-Predict2's VAE)."""
        return self.world_latent_shape[0] if self.world_latent_shape else self.vae_config.get("z_dim", 16)

    @property
    def latent_stride(self) -> int:
        """Pixels along one side of a latent cell (8 for Cosmos-Predict2's VAE)."""
        if self.world_latent_shape:
            return self.world_latent_shape[1]
        return 2 ** (len(self.vae_config.get("dim_mult", [1, 2, 4, 4])) - 1)

    @property
    def latent_side(self) -> int:
        """Cells along one side of a latent frame (64 at 512 pixels)."""
        return self.world_image_size // self.latent_stride

    @property
    def latent_cells(self) -> int:
        """Cells of one latent frame (4096 at 512 pixels)."""
        return self.latent_side**2

    @property
    def num_world_tokens(self) -> int:
        """Placeholders between start and end of world: those of one frame × (1 + `num_world_steps`)."""
        return self._tokens_per_frame(self.world_tokens_per_frame) * (1 + self.num_world_steps)

    @property
    def fewest_world_tokens(self) -> int:
        """The same of the sample with the fewest, where training draws them at random."""
        drawn = self.trained_world_tokens_per_frame or []
        return min([self.num_world_tokens, *(budget * (1 + self.num_world_steps) for budget in drawn)])

    @property
    def budgets_trained_with(self) -> list[int]:
        """World tokens a frame that it has read in training."""
        return self.trained_world_tokens_per_frame or [self._tokens_per_frame(self.world_tokens_per_frame)]

    def _tokens_per_frame(self, budget: int | None) -> int:
        mode = self.world_projection_mode
        return tokens_per_frame(self.latent_side, self.latent_channels, mode=mode, budget=budget)

    def _check_gemma(self) -> None:
        text = self.gemma_config.text_config
        if text.use_bidirectional_attention:
            raise ValueError("found use_bidirectional_attention=True, expected a causal Gemma 3; use a base without it")
        if text.final_logit_softcapping or text.attn_logit_softcapping:
            raise ValueError(
                f"found final_logit_softcapping={text.final_logit_softcapping} and attn_logit_softcapping="
                f"{text.attn_logit_softcapping}, expected none: Gemma3ForConditionalGeneration ignores them, so a "
                "base that needs them cannot be reproduced"
            )
        if self.gemma_config.image_token_id >= text.vocab_size:
            raise ValueError(
                f"found image_token_id {self.gemma_config.image_token_id}, expected an id below the vocabulary size "
                f"{text.vocab_size}; set image_token_index in gemma_config"
            )

    def _check_world(self) -> None:
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(f"found {field}={getattr(self, field)!r}, expected one of {choices}")
        if self.world_projection_mode == "channel" and self.projection_architecture != "mlp":
            raise ValueError("channel mode has the mlp projection only; set projection_architecture='mlp'")
        if self.world_image_size <= 0 or self.world_image_size % self.latent_stride:
            raise ValueError(
                f"found world_image_size={self.world_image_size}, expected a positive multiple of the latent stride "
                f"{self.latent_stride}"
            )
        if not 0 <= self.num_world_steps <= self.max_world_steps:
            raise ValueError(
                f"found num_world_steps={self.num_world_steps}, expected 0 to max_world_steps={self.max_world_steps}"
            )
        for budget in (self.world_tokens_per_frame, *(self.trained_world_tokens_per_frame or ())):
            self._tokens_per_frame(budget)
        ids = (self.start_of_world_token_id, self.world_token_id, self.end_of_world_token_id)
        vocab_size = self.gemma_config.text_config.vocab_size
        if any(i is None or not 0 <= i < vocab_size for i in ids) or len(set(ids)) != 3:
            raise ValueError(
                f"found start, world and end token ids {ids}, expected three different ids below {vocab_size}; take "
                "them from the tokenizer (<unused0>, <unused1>, <unused2>) or set enable_world=False"
            )
