"""Runs: every prediction kept as it comes, scores made from the predictions alone."""
