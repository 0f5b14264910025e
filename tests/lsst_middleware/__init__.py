"""Tests that need LSST middleware: tests/test_lsst.py runs them in an environment of its own."""
