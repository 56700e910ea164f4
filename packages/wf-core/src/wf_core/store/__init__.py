"""What Redis keeps: keys, typed scripts, reads."""
