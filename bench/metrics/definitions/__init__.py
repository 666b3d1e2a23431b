"""The metrics, a small family in each module: ``METRICS`` of every module here is in the registry."""
