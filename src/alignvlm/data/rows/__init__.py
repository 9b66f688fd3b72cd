"""Files of rows, read by number: JSON, parquet, arrow, and tar shards."""
