"""Other people's methods, from their own packages, run in an environment of their own."""
