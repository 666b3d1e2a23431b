"""Ground floor: small helpers that know nothing of studies, trials or records."""
