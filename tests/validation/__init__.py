"""What ``hvshare erosion`` says of real guests, held against their other boots and their kernels."""
