"""What lower precision does to a bundle, block by block, and the cheapest mixture that a budget allows."""
