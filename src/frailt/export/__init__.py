"""Ways out: models as the files that other programs read."""
