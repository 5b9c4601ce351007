"""What the models say about one snapshot: scores and forecasts."""
