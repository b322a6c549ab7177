"""Sound bounds of every exit's logits over a whole ball of images, and what they prove of the deployed rule."""
