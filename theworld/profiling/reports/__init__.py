"""What a profile leaves behind: one JSON file, and pages and pictures that are made from it alone."""
