"""Methods of filling that decide the masks of a pass independently, in an order of their own."""
