"""What the commands share: the console, errors, and what a user gives them."""
