"""What rows of the known data sets say, as conversations with images."""
