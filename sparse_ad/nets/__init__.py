"""Networks that detectors train: auto-encoders of blocks or LISTA, DCGAN, their losses, Adam."""
