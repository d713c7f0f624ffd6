"""What every family stands on: methods, problems, claims, objectives, the training loop, cost. Knows no family."""
