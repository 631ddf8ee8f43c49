"""What is true of the paper alone: its published numbers, its grid of models, its claims, tables and figures."""
