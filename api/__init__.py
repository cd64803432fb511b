"""The API: serves what is stored, and never looks at the chain itself."""
