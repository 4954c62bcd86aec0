"""TheWorld: Gemma 3 fused with Cosmos world-model latents, trained in stages, evaluated honestly."""

__version__ = "0.1.0"
