"""From an imported network to an artifact: build, link, calibrate, verify."""
