"""Tests of the parts of benchmarks that can be wrong unseen: protocols and their measures."""
