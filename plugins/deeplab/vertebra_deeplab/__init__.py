"""DeepLab v2, v3 and v3+ (arXiv:1606.00915, 1706.05587, 1802.02611) for Vertebra."""
