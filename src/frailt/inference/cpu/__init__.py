"""The compiled decoder: one packed set of weights, and no torch."""
