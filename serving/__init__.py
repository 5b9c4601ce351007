"""How one asks: the HTTP service."""
