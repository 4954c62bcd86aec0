"""How long each part of a step takes: by module, by operation, and against what the device can do."""
