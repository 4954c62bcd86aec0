"""The mask rule, the kernels that follow it (`sdpa`, `flex`, `flash`), and the choice between them (`backends`)."""
