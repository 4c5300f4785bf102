"""Training and defences."""
