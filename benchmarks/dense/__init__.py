"""Real data for dense prediction, NYUv2 and Cityscapes, in the forms in which people have them."""
