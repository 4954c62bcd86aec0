"""How a model is trained: stages, what trains at which rate, the LightningModule and its callbacks."""
