"""The six tracks of BiBench: their overall metrics, and the paper's own figures."""
