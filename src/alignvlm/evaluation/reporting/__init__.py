"""Reports over runs: the paper's tables, intervals, tests between models, and cases."""
