"""The index: every row checked and counted once, before training."""
