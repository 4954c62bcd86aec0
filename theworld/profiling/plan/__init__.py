"""Memory and time of a run before it runs: the real training step on tensors without content, on any machine."""
