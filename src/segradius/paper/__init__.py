"""The paper, re-made: what each of its tables, figures and claims asks for at a scale, and what was measured of it."""
