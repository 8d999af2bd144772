"""FCN (arXiv:1411.4038) for Vertebra."""
