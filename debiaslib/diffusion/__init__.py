"""The mathematics: schedules, loss weights, one-step estimates, the exact optimum, samplers. Torch and numpy alone."""
