"""Any images as one uint8 array: files, hub data sets, and the two that are drawn by a rule."""
