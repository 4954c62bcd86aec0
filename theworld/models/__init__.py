"""The fused model: plain torch, transformers and (in the world encoder only) diffusers."""
