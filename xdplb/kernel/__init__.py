"""The seam to the kernel: bpf, netlink, and the compiler. Nothing above this imports them."""
