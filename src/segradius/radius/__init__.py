"""How far a pixel is from another class: by smoothing (Theorem 1), by CLEVER, exactly for affine models."""
