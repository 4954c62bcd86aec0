"""Which samples share a row, the mixture of sources, and the loaders that hand the rows out."""
