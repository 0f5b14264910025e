"""The science: one module a task."""
