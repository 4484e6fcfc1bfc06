"""
A surface with known curvature
==============================

Is the measured curvature right?
"""

import matplotlib.pyplot as plt

plt.plot([1, 2])
