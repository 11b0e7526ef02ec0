"""Delta at the edge."""
