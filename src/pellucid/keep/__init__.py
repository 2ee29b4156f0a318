"""What is kept on disk while work goes on: shards of rows, a journal of what is done, keys. Knows no model."""
