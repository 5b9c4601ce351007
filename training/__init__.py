"""Which model deserves to speak: examples, evaluation, back-tests."""
