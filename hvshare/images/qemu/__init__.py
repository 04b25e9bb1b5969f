"""QEMU's migration streams, and what libvirt makes of them."""
