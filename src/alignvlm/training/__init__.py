"""Training: grounded alignment of the connector, instruction tuning, and the loop they share."""
