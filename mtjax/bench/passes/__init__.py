"""What a forward pass of n entries takes, and where its time goes."""
