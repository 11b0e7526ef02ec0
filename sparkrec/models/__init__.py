"""Models: popularity, tastes, ALS, two-tower."""
