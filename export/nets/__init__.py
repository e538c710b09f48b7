"""Networks in torch, under the published parameter names, rewritten so that their graphs are small and fuse."""
