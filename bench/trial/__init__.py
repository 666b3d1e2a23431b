"""One trial: split, fit, score, measure."""
