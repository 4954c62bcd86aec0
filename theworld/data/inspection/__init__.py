"""What an index and its samples look like, for a person."""
