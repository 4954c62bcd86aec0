"""From latents to world tokens: a small network into the language model's space, at the language model's scale.

W frames given · F latent frames of each · C latent channels · N tokens of one latent frame · D hidden size
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from theworld.models.configuration import ProjectionArchitecture, ProjectionMode

_EPSILON = 1e-6


class WorldProjector(nn.Module):
    """Latents → world tokens whose root mean square is that of the text embeddings.

    Args:
        latent_channels: Channels of a latent.
        hidden_size: Width of the language model.
        mode: `spatial`: a token per latent cell, made from its channels. `channel`: a token per latent channel,
            made from its cells.
        architecture: `mlp` (linear, GELU, linear) or a single `linear` layer.
        latent_cells: Cells of a latent frame; fixes the input width of `channel` mode.
        tokens_per_frame: In `spatial` mode the number of tokens to which a frame's cells are averaged down, in square
            blocks, before the layers see them; the same weights serve every number. None: a token a cell.
        target_rms: Root mean square of every token, normally that of the scaled text embeddings.
        num_world_steps: Future frames. With none of them there is no `temporal_embedding`.
        max_world_steps: Rows of the `temporal_embedding`.

    Attributes:
        temporal_embedding: float[max_world_steps, D], added to the tokens of future frame 1, 2, … so that the language
            model can tell when a frame is; the present frame has none. It begins at 0: a new projector makes of a frame
            what it makes of it alone.
    """

    target_rms: Tensor
    temporal_embedding: nn.Parameter | None

    def __init__(
        self,
        *,
        latent_channels: int,
        hidden_size: int,
        mode: ProjectionMode,
        architecture: ProjectionArchitecture,
        latent_cells: int,
        target_rms: float,
        tokens_per_frame: int | None = None,
        num_world_steps: int = 0,
        max_world_steps: int = 16,
    ) -> None:
        super().__init__()
        self.mode = mode
        self.latent_channels = latent_channels
        self.latent_cells = latent_cells
        self.tokens_per_frame = tokens_per_frame
        width = latent_channels if mode == "spatial" else latent_cells
        self.layers = nn.Sequential(nn.Linear(width, hidden_size))
        if architecture == "mlp":
            self.layers.extend([nn.GELU(), nn.Linear(hidden_size, hidden_size)])
        embedding = nn.Parameter(torch.zeros(max_world_steps, hidden_size)) if num_world_steps else None
        self.register_parameter("temporal_embedding", embedding)
        self.register_buffer("target_rms", torch.tensor(target_rms, dtype=torch.float32))

    def forward(self, latents: Tensor, drawn: Sequence[int] | None = None) -> Tensor:
        """`float[W, C, F, h, w]` → `float[W, F·N, D]`, tokens frame by frame.

        Args:
            latents: Of the frames.
            drawn: W numbers of tokens to a latent frame in place of `tokens_per_frame`; then the answer is
                `float[1, Σ F·N, D]`, one frame's tokens after another's.
        """
        cells = latents.shape[3] * latents.shape[4]
        fixed = self.mode == "channel" or self.tokens_per_frame is not None or drawn is not None
        if fixed and cells != self.latent_cells:
            raise ValueError(
                f"found latents of {cells} cells, expected {self.latent_cells}: channel mode and tokens_per_frame are "
                "tied to one image size; resize the frames to world_image_size"
            )
        if drawn is not None:
            return self._of_different_lengths(latents, drawn)
        if self.tokens_per_frame is not None:
            latents = block_means(latents, side=math.isqrt(self.tokens_per_frame))
        by_frame = latents.flatten(3).transpose(1, 2)  # (W, F, C, h·w)
        if self.mode == "spatial":
            by_frame = by_frame.transpose(2, 3)  # (W, F, N, C)
        inputs = by_frame.flatten(1, 2).to(next(self.parameters()).dtype)  # (W, F·N, C or h·w)
        return self._at_text_scale(self._in_time(self.layers(inputs), frames=latents.shape[2]))  # (W, F·N, D)

    def _of_different_lengths(self, latents: Tensor, drawn: Sequence[int]) -> Tensor:
        """As `forward` with `drawn`: each frame is averaged by itself, and the layers see all cells in one product."""
        frames = latents.shape[2]
        means = [block_means(of_one, side=math.isqrt(n)) for of_one, n in zip(latents.split(1), drawn, strict=True)]
        cells = torch.cat([of_one.flatten(2).transpose(1, 2) for of_one in means], dim=1)  # (1, Σ F·N, C)
        tokens = self.layers(cells.to(next(self.parameters()).dtype)).split([frames * n for n in drawn], dim=1)
        return self._at_text_scale(torch.cat([self._in_time(of_one, frames=frames) for of_one in tokens], dim=1))

    def _in_time(self, tokens: Tensor, *, frames: int) -> Tensor:
        """Tokens float[W, F·N, D] with the embedding of each future frame added."""
        if self.temporal_embedding is None or frames == 1:
            return tokens
        by_frame = tokens.unflatten(1, (frames, -1))  # (W, F, N, D)
        future = by_frame[:, 1:] + self.temporal_embedding[: frames - 1, None]  # (W, F - 1, N, D)
        return torch.cat([by_frame[:, :1], future.to(tokens.dtype)], dim=1).flatten(1, 2)  # (W, F·N, D)

    def _at_text_scale(self, tokens: Tensor) -> Tensor:
        """Give every token the target root mean square; in float32, because bfloat16 keeps 8 bits of it."""
        if self.target_rms.dtype != torch.float32:
            raise ValueError(
                f"found target_rms in {self.target_rms.dtype}, expected float32: cast the parameters only "
                "(TheWorld.from_pretrained(dtype=...)), not the buffers"
            )
        wide = tokens.float()
        inverse_rms = torch.rsqrt(wide.square().mean(-1, keepdim=True) + _EPSILON)
        return (wide * inverse_rms * self.target_rms).to(tokens.dtype)


def block_means(latents: Tensor, *, side: int) -> Tensor:
    """Means of square blocks of cells: `float[W, C, F, h, w]` → `float[W, C, F, side, side]`."""
    blocks = latents.unflatten(4, (side, -1)).unflatten(3, (side, -1))  # (W, C, F, side, h/side, side, w/side)
    return blocks.mean((4, 6))
