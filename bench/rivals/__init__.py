"""What users would take instead of Cocoon, measured beside it: the same model, bytes, load and cores for all."""
