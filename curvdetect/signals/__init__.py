"""What can be measured around an image, one file a signal."""
