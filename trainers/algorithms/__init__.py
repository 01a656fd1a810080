"""One file per binarization algorithm. A new one is a file here with a class under `@algorithms.register`."""

from trainers.operator import algorithms

algorithms.discover(__name__, __path__)
