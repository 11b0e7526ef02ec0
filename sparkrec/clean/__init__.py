"""Bronze to silver: types, rules, duplicates, cancellations, bots."""
