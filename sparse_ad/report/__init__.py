"""What a person reads after a run: the page, its figures and pictures."""
