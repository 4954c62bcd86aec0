"""Text that a denoiser is told, as embeddings of Cosmos' own T5 (11 B parameters), which are made elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from theworld.models.weights_digest import weights_sha256
from theworld.models.world_sources.source import Facts


@dataclass(frozen=True, kw_only=True)
class Text:
    """One text for every image.

    Attributes:
        prompt: float[L, width].
        negative: float[L', width], what guidance leads away from; None without guidance.
    """

    prompt: Tensor
    negative: Tensor | None = None

    @classmethod
    def none(cls, width: int) -> Text:
        """No text: one embedding of zeros, of which cross-attention takes nothing."""
        return cls(prompt=torch.zeros(1, width))

    @classmethod
    def read(cls, path: str | Path) -> Text:
        """From a safetensors file with `prompt_embeds` and perhaps `negative_prompt_embeds`, float[L, width] each.

        Raises:
            ValueError: No such file of safetensors, or not of such tensors.
        """
        try:
            stored = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: is no file of safetensors ({error}); write the embeddings again") from error
        if "prompt_embeds" not in stored or any(tensor.dim() != 2 for tensor in stored.values()):
            found = {name: tuple(tensor.shape) for name, tensor in stored.items()}
            raise ValueError(f"{path}: found {found}, expected prompt_embeds (L, width) and negative_prompt_embeds")
        return cls(prompt=stored["prompt_embeds"], negative=stored.get("negative_prompt_embeds"))

    def check(self, width: int) -> None:
        """Refuse embeddings that a denoiser cannot read, before its weights are moved anywhere.

        Args:
            width: Of the embeddings that the denoiser reads.

        Raises:
            ValueError: Another width, no token, or values that are no numbers.
        """
        for name, given in (("prompt_embeds", self.prompt), ("negative_prompt_embeds", self.negative)):
            if given is None:
                continue
            if given.shape[1] != width or not len(given) or not torch.isfinite(given).all():
                raise ValueError(
                    f"found {name} {tuple(given.shape)}, finite: {bool(torch.isfinite(given).all())}, expected finite "
                    f"numbers (L, {width}) with L of at least 1: give embeddings of the denoiser's own text encoder"
                )

    def spread(self, latents: Tensor) -> Tensor:
        """The prompt for every latent, on their device: float[W, L, width]."""
        return self.prompt.to(latents.device).expand(len(latents), -1, -1)

    def fingerprint(self) -> Facts:
        """Its values."""
        given = {"prompt": self.prompt, "negative": self.negative}
        holder = nn.ParameterDict({name: nn.Parameter(t, False) for name, t in given.items() if t is not None})
        return {"text_sha256": weights_sha256(holder, {})}
