"""The paper's experiment: its published numbers, fair comparisons, and their reports."""
