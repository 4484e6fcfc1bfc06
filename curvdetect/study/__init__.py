"""What a study of detectors needs: data sets, small networks, training, metrics.

One module each, imported when wanted.
"""
