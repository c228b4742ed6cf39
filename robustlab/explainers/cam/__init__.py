"""Class activation maps: where in a convolutional layer the score comes from."""
