"""Models: the contracts, common backbones, necks and losses, and the Model that runs them."""
