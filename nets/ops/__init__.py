"""Operations on boxes: IoU, non-maximum suppression, box voting."""
