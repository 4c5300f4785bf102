"""Threat models: lp balls cut with the pixel box, and exact projections onto them."""
