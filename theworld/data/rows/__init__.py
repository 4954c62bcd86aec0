"""Rows on disk: where they lie in a file of any size, and what each format says."""
