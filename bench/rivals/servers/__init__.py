"""What the rivals run: each does what its documentation shows for raw bytes, in .venv-bench, without Cocoon."""
