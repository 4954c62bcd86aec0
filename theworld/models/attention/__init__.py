"""The mask rule, its kernels (`sdpa`, `flex`, `flash`, `flash4`), and the choice between them (`backends`)."""
