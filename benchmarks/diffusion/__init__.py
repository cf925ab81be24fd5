"""Denoising as many tasks, one an interval of timesteps, on points, digits and pictures."""
