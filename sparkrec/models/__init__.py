"""Models: popularity, ALS, two-tower."""
