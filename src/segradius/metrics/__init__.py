"""PixAcc, MIoU in both senses, intervals and paired tests, from integer counts an image."""
