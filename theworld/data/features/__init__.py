"""The cache of what frozen towers make of a source's images: drawings, shards of entries, writing and reading them."""
