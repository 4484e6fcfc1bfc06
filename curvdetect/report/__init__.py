"""Experiments that end in a page or a folder of pictures, one module each."""
