"""What passes are written with: our operators and their attributes, rewriting, values of expressions."""
