"""Silver to gold: the events that count, the vocabulary, profiles, item features, sequences. All as of the split."""
