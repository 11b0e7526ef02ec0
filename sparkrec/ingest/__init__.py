"""Raw files to bronze: sources, formats, and the simulated shop."""
