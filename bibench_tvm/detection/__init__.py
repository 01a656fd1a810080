"""What a detector does between and behind its networks, in numpy, for where there is no torch: a board."""
