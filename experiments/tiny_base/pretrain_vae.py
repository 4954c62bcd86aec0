"""Pretrains the tiny Wan VAE: reconstruction of single frames, so that its latents describe a scene.

Loss: mean absolute error of pixels and of their finite differences, mean squared error of pixels, and a small KL term
that keeps latents bounded. A causal convolution over one frame sees zeros in every tap but its last, so training runs
it as a 2-D convolution with that tap: the same numbers, many times faster. The other taps learn nothing.

After training the per-channel mean and standard deviation of the latent modes are measured and stored in the VAE's
config, where Wan keeps its own (`latents_mean`, `latents_std`).
"""

from __future__ import annotations

import math
from unittest import mock

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from pace import Pace
from torch import Tensor
from torch.nn import functional as F

KL_WEIGHT = 1e-5
WARMUP_STEPS = 500
COMPILER_OPTIONS = {"triton.cudagraphs": True, "force_layout_optimization": True}  # few channels: channels last pays


def pretrain_vae(
    vae: AutoencoderKLWan,
    frames: Tensor,
    *,
    steps: int,
    max_seconds: float | None,
    batch_size: int,
    learning_rate: float,
    seed: int,
    compiled: bool,
) -> list[tuple[int, float]]:
    """Trains `vae` on uint8[N, 3, h, w] frames; returns (step, loss) pairs of the training curve."""
    generator = torch.Generator(device=frames.device).manual_seed(seed)
    latent_shape = (batch_size, vae.config.z_dim, 1, *(n // vae.config.scale_factor_spatial for n in frames.shape[2:]))
    optimizer = torch.optim.AdamW(
        vae.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=1e-4, fused=frames.is_cuda
    )
    loss_of = torch.compile(training_loss, fullgraph=True, options=COMPILER_OPTIONS) if compiled else training_loss
    torch.backends.cudnn.benchmark = True
    curve = []
    pace = Pace(steps, max_seconds)
    with mock.patch.object(WanCausalConv3d, "forward", single_frame_convolution):
        for step in pace:
            steps = pace.steps
            for group in optimizer.param_groups:
                warmup = min(1.0, (step + 1) / WARMUP_STEPS)
                group["lr"] = learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * step / steps))
            rows = torch.randint(len(frames), (batch_size,), generator=generator, device=frames.device)
            noise = torch.randn(latent_shape, generator=generator, device=frames.device)
            loss = loss_of(vae, frames[rows], noise)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            optimizer.step()
            if step % 1000 == 0 or step == steps - 1:
                curve.append((step, loss.item()))
                print(f"vae step {step}: {curve[-1][1]:.4f}", flush=True)
    return curve


def single_frame_convolution(convolution: WanCausalConv3d, x: Tensor, cache_x: None = None) -> Tensor:
    """What `WanCausalConv3d.forward` gives for one frame without a past, (B, C, 1, h, w) → (B, D, 1, h, w)."""
    columns, _, rows, *_ = convolution._padding
    weight, stride = convolution.weight[:, :, -1], convolution.stride[1:]
    return F.conv2d(x.squeeze(2), weight, convolution.bias, stride, padding=(rows, columns)).unsqueeze(2)


def training_loss(vae: AutoencoderKLWan, frames: Tensor, noise: Tensor) -> Tensor:
    """Loss of a batch of frames, uint8[B, 3, h, w], whose latents are drawn with `noise`; float32[]."""
    images = to_unit_range(frames).unsqueeze(2)  # (B, 3, 1, h, w)
    with torch.autocast(images.device.type, torch.bfloat16):
        mean, log_variance = vae.quant_conv(vae.encoder(images)).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        latents = mean + torch.exp(0.5 * log_variance) * noise
        decoded = vae.decoder(vae.post_quant_conv(latents)).float()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return reconstruction_loss(decoded, images) + KL_WEIGHT * kl


def reconstruction_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """Mean absolute error of values and of horizontal and vertical differences, and mean squared error; float32[]."""
    horizontal = F.l1_loss(decoded.diff(dim=-1), images.diff(dim=-1))
    vertical = F.l1_loss(decoded.diff(dim=-2), images.diff(dim=-2))
    return F.l1_loss(decoded, images) + horizontal + vertical + F.mse_loss(decoded, images)


@torch.no_grad()
def set_latent_statistics(vae: AutoencoderKLWan, frames: Tensor) -> None:
    """Stores the mean and standard deviation of every latent channel over `frames` in the VAE's config."""
    modes = torch.cat([vae.encode(to_unit_range(part).unsqueeze(2)).latent_dist.mode() for part in frames.split(256)])
    mean, std = modes.mean(dim=(0, 2, 3, 4)), modes.std(dim=(0, 2, 3, 4))
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())


@torch.no_grad()
def reconstruct(vae: AutoencoderKLWan, frames: Tensor) -> Tensor:
    """uint8[N, 3, h, w] → its reconstruction from the latent mode, uint8[N, 3, h, w]."""
    images = to_unit_range(frames).unsqueeze(2)
    decoded = vae.decode(vae.encode(images).latent_dist.mode()).sample.squeeze(2)
    return ((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def peak_signal_to_noise(frames: Tensor, reconstruction: Tensor) -> float:
    """PSNR in dB over uint8 images, from the mean squared error of the whole set."""
    error = (frames.float() - reconstruction.float()).square().mean().item()
    return 10 * math.log10(255**2 / error)


def to_unit_range(frames: Tensor) -> Tensor:
    """uint8 → float32 in [-1, 1], the range the world encoder takes."""
    return frames.float() / 127.5 - 1.0
