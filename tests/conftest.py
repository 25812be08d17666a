"""Makes the modules beside it importable by every test."""
