"""Benchmarks behind one small interface (`benchmark`), a file each, and `opening`, which finds them by name."""
