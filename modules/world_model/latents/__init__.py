"""Kinds of the latent variable z of a world model (LeCun 2022, §4.4)."""
