"""From a group of operators to one kernel of `schedules` and its arguments: a file for each kind."""
