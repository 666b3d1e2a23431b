"""Datasets as the engine sees them: catalogue, image sets, splits, prompts."""
