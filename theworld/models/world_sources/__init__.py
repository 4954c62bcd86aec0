"""Where world latents come from: the frame itself, a rollout into the future, or a denoiser's hidden states."""
