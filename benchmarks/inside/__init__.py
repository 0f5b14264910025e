"""Programs that run in the environments of peers: they import the peer, NumPy and torch, and nothing of ours."""
