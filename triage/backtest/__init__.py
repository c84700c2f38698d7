"""Back-tests: what another rule set would have made of the failures that are stored.

`replay` decides again, `report` compares and sums up, `history` reads what is stored, `run` does it all in parallel.
"""
