"""Lightning callbacks, one behaviour a file."""
