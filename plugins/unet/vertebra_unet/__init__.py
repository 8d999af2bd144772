"""U-Net (arXiv:1505.04597) and U-Net++ (arXiv:1807.10165) for Vertebra."""
