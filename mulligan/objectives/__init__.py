"""Part 3: what is minimised. Pure functions loss(model, key, batch) -> (scalar, metrics); they never call samplers."""
