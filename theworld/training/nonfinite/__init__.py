"""A loss or gradient that is no number: what is written down of its step, and how that step is made again."""
