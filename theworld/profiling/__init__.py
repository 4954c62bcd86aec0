"""Where a training step's memory and time go. It watches the training path from above; nothing there knows of it."""
