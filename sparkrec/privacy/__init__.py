"""Persons in the lake: pseudonyms and scrubbing at ingest, erasure, export, and who did what."""
