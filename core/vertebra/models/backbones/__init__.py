"""Backbones: images to feature maps. Each is imported on its own; a recipe loads only the one that it names."""
