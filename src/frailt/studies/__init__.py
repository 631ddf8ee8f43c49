"""Models side by side: variants, fair twins, gaps, and sweeps of runs over the machines at hand."""
