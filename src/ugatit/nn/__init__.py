"""Building blocks that know no training: normalisation, CAM, residual blocks, discriminators."""
