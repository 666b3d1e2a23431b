"""Scripts that made pocket's images and weights; run them in the folder above, they are not in the wheel."""
