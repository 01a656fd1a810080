"""Training on Lightning: recipes, what a training goes on from, its log, and the judging of what was trained.

It knows neither images nor classes: what a batch, the loss and the metrics are, the task says."""
