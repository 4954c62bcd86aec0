"""The mask rule, kernels that follow it (`sdpa`, `flex`, `flash`, `flash4`), and the choice between them (`backends`)."""
