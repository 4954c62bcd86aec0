"""WebDataset tars: writing, checking, and reading them here or behind a URL."""
