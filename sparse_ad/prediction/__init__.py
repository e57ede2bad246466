"""New images: which they are, their scores, and the files that show them."""
