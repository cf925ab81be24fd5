"""Office-31 and Office-Home: one classification task a domain, each with its own pictures."""
