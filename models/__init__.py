"""Black-box models: frames in, one output value per frame out."""
