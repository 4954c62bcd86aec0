"""From a model's answers to a table: a deterministic scorer, oracle baselines, statistics and the report."""
