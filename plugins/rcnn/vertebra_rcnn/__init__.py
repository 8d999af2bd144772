"""Fast, Faster, Cascade, Mask and Keypoint R-CNN and R-FCN for Vertebra."""
