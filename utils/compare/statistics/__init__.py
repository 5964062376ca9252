"""What a few seeds can show: paired tests, looks, the bootstrap over images, halving."""
