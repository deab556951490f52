"""Networks with binary layers: our own, torchvision's, and any module, converted."""
