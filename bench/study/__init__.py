"""From a study to its trials: what a user asks for, and the plan that it expands into."""
