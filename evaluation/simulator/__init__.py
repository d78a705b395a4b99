"""Users as a model: what they do with an item that is shown to them, and when they leave and come back."""
