"""What was known, and when: canonical records and their history."""
