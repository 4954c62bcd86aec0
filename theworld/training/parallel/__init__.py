"""One run on several devices with the model's weights, gradients and optimizer state divided among them (FSDP2)."""
