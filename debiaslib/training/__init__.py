"""From a configuration to a complete run: networks, the loss, the loop, checkpoints and records."""
