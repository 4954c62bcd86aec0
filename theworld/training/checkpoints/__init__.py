"""Checkpoints that survive a kill at any moment: written aside, hashed, renamed into place, verified before loading."""
